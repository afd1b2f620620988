//! Errors of the REST-JSON services.
//!
//! In: an error as the code here makes it: `Exception` or `Exception/REASON`, or one of EC2's own. Out: the JSON
//! and the header by which clients know it. EC2's names of errors must never get out here.

use serde_json::json;

use super::Done;
use crate::ec2::Ec2Error;

pub struct RestError {
    /// `ValidationException` …
    pub code: String,
    reason: Option<String>,
    message: String,
    pub status: u16,
}

impl RestError {
    pub fn new(service: &str, error: Ec2Error) -> Self {
        // What all services share here is named as EC2 names it.
        let (code, status) = match error.code.as_str() {
            "InternalError" => ("InternalServerException", error.status),
            "RequestLimitExceeded" if service == "ebs" => {
                ("RequestThrottledException/ACCOUNT_THROTTLED", 400)
            }
            "RequestLimitExceeded" => ("ThrottlingException", 400),
            "UnauthorizedOperation" => ("AccessDeniedException", 403),
            "AuthFailure" => ("UnrecognizedClientException", 403),
            "SignatureDoesNotMatch" => ("InvalidSignatureException", 403),
            "RequestExpired" => ("ExpiredTokenException", 403),
            "MissingAuthenticationToken" => ("MissingAuthenticationTokenException", 403),
            "IncompleteSignature" => ("IncompleteSignatureException", 403),
            code => (code, error.status),
        };
        let (code, reason) = match code.split_once('/') {
            Some((code, reason)) => (code.to_owned(), Some(reason.to_owned())),
            None => (code.to_owned(), None),
        };
        Self { code, reason, message: error.message, status }
    }

    pub fn done(self) -> Done {
        let mut body = json!({ "Message": self.message });
        if let Some(reason) = self.reason {
            body["Reason"] = reason.into();
        }
        let mut done = Done::json(self.status, &body);
        done.headers.push(("x-amzn-errortype", self.code));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_told_and_ec2s_names_are_not() {
        let shown = |service, code: &str, status| {
            let error = RestError::new(service, Ec2Error::new(code, "text").status(status));
            let (status, done) = (error.status, error.done());
            let kind = done.headers[0].1.clone();
            format!("{status} {kind} {}", String::from_utf8_lossy(&done.body))
        };
        assert_eq!(
            shown("ebs", "ValidationException/UNRELATED_SNAPSHOTS", 400),
            r#"400 ValidationException {"Message":"text","Reason":"UNRELATED_SNAPSHOTS"}"#
        );
        assert!(shown("ebs", "RequestLimitExceeded", 503).starts_with("400 RequestThrottledException"));
        assert!(shown("rbin", "RequestLimitExceeded", 503).starts_with("400 ThrottlingException"));
        assert!(shown("ebs", "AuthFailure", 401).starts_with("403 UnrecognizedClientException"));
        assert!(shown("ebs", "UnauthorizedOperation", 403).starts_with("403 AccessDeniedException"));
    }
}
