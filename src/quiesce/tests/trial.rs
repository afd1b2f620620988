//! What a launcher's arguments are taken for. What the kernel says of files is in tests/system.

use super::*;

fn of(line: &str) -> Option<(String, String, bool)> {
    let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    let next = next(Path::new(&words[0]), &words[1..], "/p".into())?;
    Some((next.words.join(" "), next.path.to_string_lossy().into_owned(), next.as_other))
}

#[test]
fn the_command_of_a_launcher_is_its_first_word_that_is_no_option_or_operand() {
    for (line, command) in [
        ("/usr/bin/env x y", "x y"),
        ("/usr/bin/env -u A -v B=c x -i", "x -i"),
        ("/usr/bin/env -uA -- x", "x"),
        ("/usr/bin/env --unset=A A=b x", "x"),
        ("/bin/timeout -k 2 -sTERM --foreground 5 x 6", "x 6"),
        ("/bin/timeout --kill-after=2 5 x", "x"),
        ("/bin/nice -n 5 x", "x"),
        ("/bin/nice -n5 x", "x"),
        ("/bin/nice --adjustment=5 x", "x"),
        ("/bin/ionice -c2 -n 0 x", "x"),
        ("/bin/chrt -f 10 x", "x"),
        ("/bin/nohup x", "x"),
        ("/bin/setsid -f --wait x", "x"),
        ("/bin/stdbuf -oL x", "x"),
        ("/bin/flock -n -w 5 /run/lock x", "x"),
        ("/usr/bin/sudo -n -u postgres A=b /x", "/x"),
    ] {
        assert_eq!(of(line).map(|(command, ..)| command).as_deref(), Some(command), "{line}");
    }
    assert_eq!(of("/usr/bin/env PATH=/q x").unwrap().1, "/q");
    assert!(of("/usr/bin/sudo /x").unwrap().2 && !of("/bin/nice x").unwrap().2);
}

#[test]
fn of_other_options_and_programs_nothing_is_said() {
    for line in [
        "/usr/bin/env -S sh",
        "/usr/bin/env -i x",
        "/usr/bin/env -C /d x",
        "/usr/bin/env --chdir /d x",
        "/usr/bin/env -",
        "/usr/bin/env",
        "/bin/timeout 5",
        "/bin/nice -5 x",
        "/bin/ionice -p 5",
        "/bin/flock /run/lock -c x",
        "/usr/bin/sudo -s x",
        "/usr/bin/sudo --user postgres x",
        "/usr/sbin/chroot /d x",
        "/bin/sh x",
    ] {
        assert_eq!(of(line), None, "{line}");
    }
}

#[test]
fn the_kernels_reading_of_a_first_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    let path = file.to_str().unwrap();
    for (text, words) in [
        ("#!/bin/sh\n", Some(vec!["/bin/sh", path, "a"])),
        ("#! \t/bin/sh  -e -u \nx", Some(vec!["/bin/sh", "-e -u", path, "a"])),
        ("#!/bin/sh\r\n", Some(vec!["/bin/sh\r", path, "a"])),
        ("#!/usr/bin/env sh", Some(vec!["/usr/bin/env", "sh", path, "a"])),
        (" #!/bin/sh\n", None),
        ("", None),
    ] {
        std::fs::write(&file, text).unwrap();
        let words = words.map(|w| w.into_iter().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(first_line(&file, &["a".into()]), words, "{text:?}");
    }
}
