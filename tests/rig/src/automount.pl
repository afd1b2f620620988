# An automounter as systemd's: mounts DEVICE at AT at the first access. Only processes of its own group do not
# set it off. Ends with its standard input's other end, as every background process of a test does.
use strict;
use warnings;
use Fcntl;
$^F = 255;    # mount(8) gets the pipe
setpgrp(0, 0);
my ($device, $at) = @ARGV;
pipe(my $read, my $write) or die "pipe: $!";
my $fd = fileno($write);
my $options = "fd=$fd,pgrp=$$,minproto=5,maxproto=5,direct";
system("mount", "-i", "-t", "autofs", "-o", $options, "test-automount", $at) == 0 or die "mount: $?";
close($write);
sysopen(my $root, $at, O_RDONLY) or die "open $at: $!";
$| = 1;
print "ready\n";
# struct autofs_v5_packet, linux/auto_fs.h; 0x9360 is AUTOFS_IOC_READY, 0x9361 AUTOFS_IOC_FAIL.
while ((sysread($read, my $packet, 304) // 0) > 0) {
    my ($version, $type, $token) = unpack("iiI", $packet);
    if ($device eq "never") {
        open(my $asked, ">", "$at.asked") or die "$at.asked: $!";
        sleep;
    }
    my $failed = $type != 5 || system("mount", $device, $at) != 0;
    ioctl($root, $failed ? 0x9361 : 0x9360, $token) or die "ioctl: $!";
}
