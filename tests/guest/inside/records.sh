# Runs in the guest: the records of the writer in a folder, as they are: how many, and `bad` where one is not what it was
# written as. In: the folders.
set -u
for folder; do
    python3 - "$folder" <<'P'
import os, sys
try:
    with open(os.path.join(sys.argv[1], "records"), "rb") as file:
        data = file.read()
except OSError as error:
    print(sys.argv[1], "bad", error.strerror)
    sys.exit()
whole = [data[at : at + 128] for at in range(0, len(data), 128)]
wrong = [n for n, record in enumerate(whole, 1) if record != (b"%010d " % n).ljust(127, b"x") + b"\n"]
print(sys.argv[1], "bad %d" % wrong[0] if wrong else len(whole))
P
done
