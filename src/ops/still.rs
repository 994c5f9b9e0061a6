//! Whether what was allowed when it began still is.
//!
//! A body may take hours, and a policy may change meanwhile: whoever moves one asks again, now and
//! then, and once more before what came is committed.

use std::sync::Arc;

use super::target::Target;
use super::{OpError, PublishPlan, PutPlan, Service};
use crate::identity::Identity;
use crate::path::RemotePath;
use crate::policy::Action;

type Ask = dyn Fn(&Service) -> Result<(), OpError> + Send;

/// Asks the policy of now.
pub struct Still(Box<Ask>);

impl Still {
    fn new(ask: impl Fn(&Service) -> Result<(), OpError> + Send + 'static) -> Self {
        Self(Box::new(ask))
    }

    /// For what needs no right of its own.
    pub fn always() -> Self {
        Self::new(|_| Ok(()))
    }

    /// Whether a file may be read.
    pub fn reading(who: Arc<Identity>, path: RemotePath) -> Self {
        Self::new(move |service| {
            let policy = service.policy();
            policy.authorize(&who, Action::Read, &path)?;
            Ok(())
        })
    }

    /// # Errors
    /// It is not allowed any more.
    pub fn ask(&self, service: &Service) -> Result<(), OpError> {
        (self.0)(service)
    }
}

impl PutPlan {
    /// Whether the file may still be put.
    pub fn still(&self) -> Still {
        let target = self.target.clone();
        Still::new(move |service| service.renew(&target).map(drop))
    }
}

impl PublishPlan {
    /// Whether the message may still be published.
    pub fn still(&self) -> Still {
        let (who, topic) = (self.who.clone(), self.topic.clone());
        Still::new(move |service| {
            let policy = service.policy();
            policy.authorize(&who, Action::Publish, &topic)?;
            Ok(())
        })
    }
}

impl Service {
    /// The same target, with the rights of now.
    ///
    /// # Errors
    /// No grant covers it any more.
    pub(super) fn renew(&self, target: &Target) -> Result<Target, OpError> {
        self.target(&target.who, &target.path, target.conditions)
    }

    /// The same plan, with the rights of now.
    ///
    /// # Errors
    /// No grant covers it any more.
    pub fn renew_put(&self, mut plan: PutPlan) -> Result<PutPlan, OpError> {
        plan.target = self.renew(&plan.target)?;
        Ok(plan)
    }
}
