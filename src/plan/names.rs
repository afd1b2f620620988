//! Mount points and volumes as the settings name them.
//!
//! In: names from the settings. Out: which filesystem or volume that is. Must never: guess; a name that is
//! not exactly a mount point or an attached volume is an error that offers the nearest ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::classify::is_kernel_made;
use super::{Method, PlanError};
use crate::discover::{Facts, Filesystem};
use crate::ids::VolumeId;
use crate::path_encoding::shown;

pub(super) struct Names<'a> {
    pub facts: &'a Facts,
}

impl<'a> Names<'a> {
    /// Indices of the filesystems with these mount points.
    pub fn mounts(&self, key: &'static str, mounts: &[PathBuf]) -> Result<Vec<usize>, PlanError> {
        mounts.iter().map(|m| self.mount(key, m)).collect()
    }

    fn mount(&self, key: &'static str, mount: &Path) -> Result<usize, PlanError> {
        let has =
            |f: &Filesystem, hidden| f.mounts.iter().any(|m| m.hidden == hidden && m.mount_point == *mount);
        let filesystems = &self.facts.filesystems;
        let found =
            [false, true].into_iter().find_map(|hidden| filesystems.iter().position(|f| has(f, hidden)));
        found.ok_or_else(|| PlanError::UnknownMount {
            key,
            mount: mount.to_owned(),
            within: mount_of(self.facts, mount).map(|(_, at)| at.to_owned()),
            near: self.near_mounts(mount, mount_of(self.facts, mount).map(|(_, at)| at)),
        })
    }

    fn near_mounts(&self, mount: &Path, within: Option<&Path>) -> Vec<PathBuf> {
        let wanted = shown(mount);
        let mounted = self.facts.filesystems.iter().filter(|f| !is_kernel_made(&f.fstype));
        let points = mounted.flat_map(|f| f.mounts.iter()).filter(|m| !m.hidden).map(|m| &m.mount_point);
        let points = points.filter(|p| Some(p.as_path()) != within);
        let mut near: Vec<(usize, &PathBuf)> =
            points.map(|p| (strsim::osa_distance(&wanted, &shown(p)), p)).filter(|(d, _)| *d <= 2).collect();
        near.sort();
        near.dedup();
        near.into_iter().take(3).map(|(_, p)| p.clone()).collect()
    }

    /// Checks that these volumes are attached.
    pub fn volumes(&self, key: &'static str, volumes: &[VolumeId]) -> Result<(), PlanError> {
        let attached = &self.facts.volumes;
        let Some(unknown) = volumes.iter().find(|v| !attached.iter().any(|a| a.id == **v)) else {
            return Ok(());
        };
        let distance = |v: &VolumeId| strsim::osa_distance(v.as_str(), unknown.as_str());
        let mut near: Vec<VolumeId> = attached.iter().map(|a| a.id.clone()).collect();
        if near.len() > 4 {
            // Ids are random: one that differs by more than a typing error is no help.
            near.retain(|v| distance(v) <= 4);
            near.sort_by_key(distance);
            near.truncate(3);
        }
        Err(PlanError::UnknownVolume { key, volume: unknown.clone(), near })
    }

    /// The setting `methods`, as indices of filesystems.
    pub fn methods(
        &self,
        methods: &'a BTreeMap<PathBuf, Method>,
    ) -> Result<BTreeMap<usize, Method>, PlanError> {
        let mut found: BTreeMap<usize, (&Path, Method)> = BTreeMap::new();
        for (mount, method) in methods {
            let at = self.mount("methods", mount)?;
            match found.get(&at) {
                Some((other, m)) if m != method => {
                    let mounts = ((*other).to_owned(), mount.clone());
                    return Err(PlanError::TwoMethods { mounts });
                }
                _ => found.insert(at, (mount, *method)),
            };
        }
        Ok(found.into_iter().map(|(at, (_, method))| (at, method)).collect())
    }
}

/// The mount that a path is on. Covered mounts do not count, so the longest prefix is the right one.
pub(super) fn mount_of<'a>(facts: &'a Facts, path: &Path) -> Option<(&'a Filesystem, &'a Path)> {
    let mounts = facts.filesystems.iter().flat_map(|f| f.mounts.iter().map(move |m| (f, m)));
    mounts
        .filter(|(_, m)| !m.hidden && path.starts_with(&m.mount_point))
        .max_by_key(|(_, m)| m.mount_point.components().count())
        .map(|(f, m)| (f, m.mount_point.as_path()))
}
