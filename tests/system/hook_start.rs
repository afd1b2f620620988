//! Commands that the kernel cannot start are refused before anything is touched, and nothing of a command runs
//! while that is found out.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rig::hooks::{log, note, noting};
use rig::program::put_executable;
use rig::{Fs, Rig, sh};

/// A copy of a program of this machine, changed.
fn elf(at: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read("/bin/true").unwrap();
    change(&mut bytes);
    put_executable(at, bytes);
}

/// Files of each kind in a folder; those that are fine have `good` in their names.
fn files(d: &Path) {
    let script = |name: &str, text: &str| put_executable(&d.join(name), text);
    script("no-first-line", "echo hi\n");
    script("empty", "");
    script("windows", "#!/bin/sh\r\necho hi\r\n");
    script("missing", &format!("#!{}/none\n", d.display()));
    script("by-text", &format!("#!{}/no-first-line\n", d.display()));
    script("by-missing", &format!("#!{}/missing\n", d.display()));
    script("by-nothing", "#!\n");
    script("env-missing", "#!/usr/bin/env nosuchinterpreter\n");
    script("env-windows", "#!/usr/bin/env sh\r\necho hi\r\n");
    script("plain", "#!/bin/sh\n");
    std::fs::set_permissions(d.join("plain"), std::fs::Permissions::from_mode(0o644)).unwrap();
    script("by-plain", &format!("#!{}/plain\n", d.display()));
    elf(&d.join("machine"), |b| b[18..20].copy_from_slice(&[0x34, 0x12]));
    elf(&d.join("cut"), |b| b.truncate(40));
    elf(&d.join("loader"), |b| {
        let at =
            b.windows(4).position(|w| w == b"/ld-").or_else(|| b.windows(7).position(|w| w == b"/lib64/"));
        b[at.unwrap() + 1] = b'X';
    });
    script("good", "#!/bin/sh\nexit 0\n");
    script("good-option", "#! /bin/sh -e\nexit 0\n");
    script("good-env", "#!/usr/bin/env sh\nexit 0\n");
    script("good-by-good", &format!("#!{}/good\n", d.display()));
    elf(&d.join("good-program"), |_| ());
    std::fs::create_dir(d.join("noexec")).unwrap();
    sh("mount", &["-t", "tmpfs", "-o", "noexec", "tmpfs", d.join("noexec").to_str().unwrap()]);
    script("noexec/good", "#!/bin/sh\n");
    script("on-noexec", &format!("#!{}/noexec/good\n", d.display()));
    std::fs::create_dir(d.join("private")).unwrap();
    script("private/good", "#!/bin/sh\n");
    std::fs::set_permissions(d.join("private"), std::fs::Permissions::from_mode(0o700)).unwrap();
    script("roots", "#!/bin/sh\n");
    std::fs::set_permissions(d.join("roots"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn what_the_kernel_cannot_start_is_refused_before_anything_is_touched() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let d = rig.path("h");
    std::fs::create_dir(&d).unwrap();
    for open in [rig.path(""), d.clone()] {
        std::fs::set_permissions(open, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    files(&d);
    let of = |text: &str| text.replace("{d}", d.to_str().unwrap());
    let hook = |command: &str, more: &str| {
        let words: Vec<_> = of(command).split(' ').map(|w| format!("\"{w}\"")).collect();
        format!("[[hook]]\nname = \"tried\"\n{more}pre = [{}]\ntimeout = \"10s\"\n", words.join(", "))
    };
    let nobody = "user = \"nobody\"\n";
    let refused = [
        hook("{d}/no-first-line", ""),
        hook("{d}/empty", ""),
        hook("{d}/windows", ""),
        hook("{d}/missing", ""),
        hook("{d}/by-text", ""),
        hook("{d}/by-missing", ""),
        hook("{d}/by-nothing", ""),
        hook("{d}/by-plain", ""),
        hook("{d}/env-missing", ""),
        hook("{d}/env-windows", ""),
        hook("{d}/machine", ""),
        hook("{d}/cut", ""),
        hook("{d}/loader", ""),
        hook("{d}", ""),
        hook("{d}/noexec/good", ""),
        hook("{d}/on-noexec", ""),
        hook("{d}/private/good", nobody),
        hook("{d}/roots", nobody),
        hook("{d}/good", "user = \"nosuchuser\"\n"),
        hook("/usr/bin/env A=b {d}/windows", ""),
        hook("/usr/bin/env nosuchprogram", ""),
        hook("/usr/bin/env {d}/machine", ""),
        hook("/usr/bin/timeout -k 2 5 {d}/missing", ""),
        hook("/usr/bin/timeout 5 /usr/bin/nice -n5 {d}/env-missing x", ""),
        hook("/usr/bin/nice {d}/nosuchfile", ""),
        hook("/usr/bin/timeout 5 {d}/roots", nobody),
        // Not of the first command alone, and of every kind of hook.
        hook("{d}/good", &of("post = [\"{d}/windows\"]\n")),
        hook("{d}/good", &of("completed = [\"{d}/windows\"]\n")),
        hook("{d}/good", &of("failed = [\"{d}/windows\"]\n")),
        of("[[session]]\nname = \"tried\"\ncommand = [\"{d}/windows\"]\ntimeout = \"10s\"\n"),
        of(
            "[[session]]\nname = \"tried\"\ncommand = [\"{d}/good\"]\nrelease = [\"{d}/empty\"]\ntimeout = \"10s\"\n",
        ),
        of("[[hook_directory]]\nname = \"tried\"\npath = \"{d}\"\ntimeout = \"10s\"\n"),
    ];
    for bad in &refused {
        rig.configure(&format!("{}{bad}", noting(&rig, "first")));
        let said = rig.run(&["snapshot"]);
        assert!(
            said.code == Some(78) && said.err.contains("hook `tried"),
            "{bad}: {:?} {}",
            said.code,
            said.err
        );
        assert_eq!((log(&rig), rig.journals()), (vec![], vec![]), "{bad}");
    }
    rig.configure(&refused[2]);
    let said = rig.run(&["snapshot"]);
    said.says("`/bin/sh\\r` is not there");
    rig.run(&["plan"]).exits(0).says("problem: hook `tried`");
    assert!(rig.run(&["doctor"]).exits(78).out.contains("hook `tried`"));
    for (at, words) in
        [(0, "no first line"), (10, "another machine"), (12, "dynamic loader"), (16, "`nobody`")]
    {
        rig.configure(&refused[at]);
        rig.run(&["snapshot"]).exits(78).says(words);
    }
    assert_eq!(rig.creates().len(), 0);

    let good = [
        hook("{d}/good", ""),
        hook("{d}/good", nobody),
        hook("{d}/good-option", ""),
        hook("{d}/good-env", ""),
        hook("{d}/good-by-good", ""),
        hook("{d}/good-program", ""),
        hook("{d}/roots", ""),
        // They give it to a shell.
        hook("/usr/bin/env {d}/no-first-line", ""),
        hook("/usr/bin/timeout 5 {d}/no-first-line", ""),
        // What is not known is left to the run.
        hook("/bin/sh -c {d}/good||{d}/windows", ""),
        hook("/usr/bin/env --unset=X -- {d}/good", ""),
        hook("/usr/bin/env PATH={d} good", ""),
    ];
    for good in &good {
        rig.configure(good);
        rig.run(&["snapshot"]).exits(0);
    }
    sh("umount", &[d.join("noexec").to_str().unwrap()]);
}

/// A program is loaded to see whether it can be, and ended before its first instruction.
#[test]
fn nothing_of_a_command_runs_while_it_is_tried() {
    let rig = Rig::start(&[("a", Fs::Ext4)]);
    let script = rig.path("script");
    put_executable(&script, format!("#!/bin/sh\n{}\n", note(&rig, "ran")));
    let (path, nobody) = (script.display(), rig.path("log"));
    std::fs::write(&nobody, "").unwrap();
    rig.configure(&format!("[[hook]]\nname = \"x\"\npre = [\"/usr/bin/env\", \"{path}\"]\npost = [\"{path}\"]\ntimeout = \"9s\"\n"));
    for _ in 0..20 {
        rig.run(&["plan"]).exits(0);
    }
    rig.run(&["doctor"]);
    assert_eq!(log(&rig), Vec::<String>::new());
    rig.run(&["snapshot"]).exits(0);
    assert_eq!(log(&rig), ["ran", "ran"]);
}
