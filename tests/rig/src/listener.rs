//! A fanotify listener that is asked for leave and never answers: what a hanging virus scanner does to a
//! host.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// One that ends itself after 80 s: its own rescue, since every open of that filesystem hangs until then.
pub struct Listener {
    child: Child,
}

impl Listener {
    /// Marks the whole filesystem, so that it is asked in every mount namespace: FAN_CLASS_CONTENT;
    /// FAN_MARK_ADD | FAN_MARK_FILESYSTEM; FAN_OPEN_PERM | FAN_ONDIR.
    pub fn start(mount: &Path) -> Self {
        let code = format!(
            "import ctypes,signal,sys\nsignal.alarm(80)\nc=ctypes.CDLL(None)\nf=c.fanotify_init(4,0)\n\
             r=c.fanotify_mark(f,0x101,ctypes.c_uint64(0x40010000),-100,{:?}.encode())\n\
             print('R' if f>=0 and r==0 else 'E',end='',flush=True)\nsignal.pause()",
            mount.to_str().unwrap()
        );
        let mut child =
            Command::new("python3").args(["-c", &code]).stdout(Stdio::piped()).spawn().expect("python3");
        let mut said = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        assert_eq!(said, *b"R", "fanotify is not to be had here (CONFIG_FANOTIFY_ACCESS_PERMISSIONS)");
        Self { child }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = self.child.kill(); // every open that waits for it goes on
        let _ = self.child.wait();
    }
}
