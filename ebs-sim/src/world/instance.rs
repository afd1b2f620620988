//! What is fixed about the instance's network, for EC2 and the metadata service alike.
//!
//! In: the account. Out: names and addresses. The two services must never tell different ones.

use std::net::Ipv4Addr;

use super::World;

/// The address of the only network interface.
pub const MAC: &str = "0e:49:61:0f:c3:11";
pub const VPC: &str = "vpc-0123456789abcdef0";
pub const SUBNET: &str = "subnet-0123456789abcdef0";
/// The only security group.
pub const GROUP: &str = "sg-0123456789abcdef0";
/// The only network interface.
pub const INTERFACE: &str = "eni-0123456789abcdef0";

impl World {
    /// The instance's name in its VPC.
    pub fn private_dns_name(&self) -> String {
        dns_name(self.home(), self.scenario.instance.private_ip)
    }
}

/// The name of an address in a Region's VPC.
pub fn dns_name(region: &str, address: Ipv4Addr) -> String {
    let dashed = address.to_string().replace('.', "-");
    match region {
        "us-east-1" => format!("ip-{dashed}.ec2.internal"),
        region => format!("ip-{dashed}.{region}.compute.internal"),
    }
}
