//! The promoter that promotes nothing: traffic moves only to a side that proves to serve.

use super::{Order, Promoter};
use crate::failover::action::PromotionResult;

/// `promoter = "none"`.
#[derive(Debug)]
pub(super) struct Nobody;

impl Promoter for Nobody {
    async fn promote(&self, order: &Order<'_>) -> PromotionResult {
        PromotionResult::Refused(format!("promoter = \"none\": pgpivot does not promote {}", order.backend))
    }
}
