#!/bin/sh
# The job as it is done by hand: flush, freeze, call EC2, thaw. Prints how long the filesystems stood still,
# in ns. In: $1 the aws CLI, $2 the instance, then the mount points.
aws=$1 instance=$2
shift 2
thaw() { for mount in "$@"; do fsfreeze -u "$mount"; done; }
trap 'thaw "$@"' INT TERM
sync
before=$(date +%s%N)
for mount in "$@"; do fsfreeze -f "$mount"; done
"$aws" ec2 create-snapshots --instance-specification "InstanceId=$instance" >/dev/null
status=$?
thaw "$@"
after=$(date +%s%N)
echo $((after - before))
exit $status
