//! Where a server listens when nothing says where.
//!
//! In: nothing. Out: constants. Must never: be written down a second time.

/// Debian's socket, RHEL's, MySQL's own default. Where nothing names one, the first of these that exists is
/// taken.
pub(super) const SOCKETS: [&str; 3] =
    ["/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock", "/tmp/mysql.sock"];
pub(super) const PORT: u16 = 3306;
