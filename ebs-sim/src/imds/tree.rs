//! What the metadata service knows, as a tree of paths.
//!
//! In: the account and the role's key. Out: a leaf's text, or a folder's listing. The block device mapping is
//! the one of the launch: as on EC2 it must never follow an attach or detach.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use crate::keys::Key;
use crate::scenario::VolumeKind;
use crate::world::{GROUP, INTERFACE, MAC, SUBNET, VPC, World};

/// The text at `path`.
pub fn lookup(world: &World, key: &Key, path: &str) -> Option<String> {
    let path = path.trim_matches('/');
    if path.is_empty() {
        return Some("latest".to_owned());
    }
    // Every version answers alike, as on EC2.
    let (version, rest) = path.split_once('/').unwrap_or((path, ""));
    let dated = version.len() == 10 && version.starts_with("20");
    if version != "latest" && !dated {
        return None;
    }
    let leaves = leaves(world, key);
    if let Some(text) = leaves.get(rest) {
        return Some(text.clone());
    }
    let prefix = if rest.is_empty() { String::new() } else { format!("{rest}/") };
    let mut names: Vec<String> = Vec::new();
    for leaf in leaves.keys() {
        let Some(below) = leaf.strip_prefix(&prefix) else {
            continue;
        };
        let name = match below.split_once('/') {
            // The roots have no slash behind them, folders below do.
            Some((folder, _)) if rest.is_empty() => folder.to_owned(),
            Some((folder, _)) => format!("{folder}/"),
            None => below.to_owned(),
        };
        if names.last() != Some(&name) {
            names.push(name);
        }
    }
    (!names.is_empty()).then(|| names.join("\n"))
}

fn leaves(world: &World, key: &Key) -> BTreeMap<String, String> {
    let instance = &world.scenario.instance;
    let dns = world.private_dns_name();
    let zone = instance.zone();
    let xen = world.ebs().any(|volume| volume.kind == VolumeKind::Xen);
    let mut leaves: BTreeMap<String, String> = [
        ("ami-id", instance.image_id.clone()),
        ("ami-launch-index", "0".into()),
        ("ami-manifest-path", "(unknown)".into()),
        ("events/maintenance/history", "[]".into()),
        ("events/maintenance/scheduled", "[]".into()),
        ("hostname", dns.clone()),
        ("instance-action", "none".into()),
        ("instance-id", instance.id.to_string()),
        ("instance-life-cycle", "on-demand".into()),
        ("instance-type", instance.instance_type.clone()),
        ("local-hostname", dns.clone()),
        ("local-ipv4", instance.private_ip.to_string()),
        ("mac", MAC.into()),
        ("placement/availability-zone", zone.clone()),
        ("placement/region", instance.region.clone()),
        ("profile", "default-hvm".into()),
        ("reservation-id", world.reservation_id.clone()),
        ("security-groups", "default".into()),
        ("services/domain", "amazonaws.com".into()),
        ("services/partition", "aws".into()),
        ("system", if xen { "xen" } else { "nitro" }.into()),
    ]
    .into_iter()
    .map(|(path, text)| (path.to_owned(), text))
    .collect();

    let of_interface = [
        ("device-number", "0"),
        ("interface-id", INTERFACE),
        ("local-hostname", &dns),
        ("local-ipv4s", &instance.private_ip.to_string()),
        ("mac", MAC),
        ("owner-id", &instance.account_id),
        ("security-group-ids", GROUP),
        ("security-groups", "default"),
        ("subnet-id", SUBNET),
        ("vpc-id", VPC),
    ];
    for (name, text) in of_interface {
        leaves.insert(format!("network/interfaces/macs/{MAC}/{name}"), text.to_owned());
    }

    block_devices(world, &mut leaves);
    if !instance.role.is_empty() {
        credentials(world, key, &mut leaves);
    }
    if world.scenario.imds.instance_tags {
        for (name, value) in world.tags_of(instance.id.as_str()) {
            leaves.insert(format!("tags/instance/{name}"), value.clone());
        }
    }
    let mut leaves: BTreeMap<String, String> =
        leaves.into_iter().map(|(path, text)| (format!("meta-data/{path}"), text)).collect();
    leaves.insert("dynamic/instance-identity/document".into(), document(world, &zone));
    leaves
}

fn block_devices(world: &World, leaves: &mut BTreeMap<String, String>) {
    let bare = |name: &str| name.strip_prefix("/dev/").unwrap_or(name).to_owned();
    let root = world.root_device_name();
    let mut put = |name: String, text| leaves.insert(format!("block-device-mapping/{name}"), text);
    put("ami".into(), bare(&root));
    put("root".into(), root);
    // NVMe instance-store disks are not in the mapping.
    for (number, name) in world.launch_devices.iter().enumerate() {
        put(format!("ebs{}", number + 1), bare(name));
    }
}

fn instant(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn credentials(world: &World, key: &Key, leaves: &mut BTreeMap<String, String>) {
    let instance = &world.scenario.instance;
    let (made, end) = key.life.unwrap_or((Timestamp::UNIX_EPOCH, Timestamp::MAX));
    let credentials = json!({
        "Code": "Success",
        "LastUpdated": instant(made),
        "Type": "AWS-HMAC",
        "AccessKeyId": key.access_key_id,
        "SecretAccessKey": key.secret_access_key,
        "Token": key.session_token,
        "Expiration": instant(end),
    });
    let info = json!({
        "Code": "Success",
        "LastUpdated": instant(made),
        "InstanceProfileArn":
            format!("arn:aws:iam::{}:instance-profile/{}", instance.account_id, instance.role),
        "InstanceProfileId": "AIPA0123456789ABCDEF0",
    });
    let pretty = |value| serde_json::to_string_pretty(&value).unwrap_or_default();
    leaves.insert(format!("iam/security-credentials/{}", instance.role), pretty(credentials));
    leaves.insert("iam/info".into(), pretty(info));
}

fn document(world: &World, zone: &str) -> String {
    let instance = &world.scenario.instance;
    let document = json!({
        "accountId": instance.account_id,
        "architecture": instance.architecture,
        "availabilityZone": zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": instance.image_id,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": null,
        "pendingTime": instant(world.launched),
        "privateIp": instance.private_ip.to_string(),
        "ramdiskId": null,
        "region": instance.region,
        "version": "2017-09-30",
    });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn world() -> World {
        let mut scenario = Scenario::default();
        for spec in [
            "name=root,size=1MiB,boot",
            "name=scratch,size=1MiB,kind=instance-store",
            "name=a,size=1MiB,device=/dev/sdf",
        ] {
            scenario.volumes.push(spec.parse().expect("a good spec"));
        }
        World::new(&scenario, &crate::window::lay_out(&[1 << 20; 3]), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn leaves_and_listings() {
        let world = world();
        let key = crate::keys::Keys::new(std::time::Duration::from_secs(60), []).role(Timestamp::now());
        let get = |path: &str| lookup(&world, &key, path);
        assert_eq!(get("/latest/meta-data/placement/region").as_deref(), Some("us-east-1"));
        assert_eq!(get("/latest/meta-data/placement/").as_deref(), Some("availability-zone\nregion"));
        assert_eq!(get("/latest/").as_deref(), Some("dynamic\nmeta-data"));
        assert_eq!(get("/latest/meta-data/block-device-mapping").as_deref(), Some("ami\nebs1\nroot"));
        assert_eq!(get("/latest/meta-data/block-device-mapping/ebs1").as_deref(), Some("sdf"));
        assert_eq!(get("/latest/meta-data/iam/security-credentials/").as_deref(), Some("ebs-sim-role"));
        assert_eq!(get("/latest/meta-data/iam/").as_deref(), Some("info\nsecurity-credentials/"));
        assert_eq!(get("/latest/meta-data/system").as_deref(), Some("nitro"));
        let network = format!("/latest/meta-data/network/interfaces/macs/{MAC}");
        assert_eq!(get(&format!("{network}/subnet-id")).as_deref(), Some(SUBNET));
        assert_eq!(get("/latest/dynamic/instance-identity").as_deref(), Some("document"));
        assert_eq!(get("/latest/meta-data/tags/instance"), None);
        assert_eq!(get("/latest/meta-data/placement/regio"), None);
        assert!(get("/latest/meta-data/").is_some_and(|text| text.contains("placement/\n")));
        let document: serde_json::Value =
            serde_json::from_str(&get("/latest/dynamic/instance-identity/document").expect("there"))
                .expect("json");
        assert_eq!(document["pendingTime"], "1970-01-01T00:00:00Z");
    }
}
