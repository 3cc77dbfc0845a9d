//! What becomes of an order to fail a stream over, and what is heard of it.

use crate::failover::action::PromotionResult;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patch {
    Taken,
    /// It takes effect, and nobody hears of it.
    ReplyLost,
    /// It never arrives, and nobody hears of it.
    Lost,
    /// It plainly never left: nobody could be connected to.
    NotSent,
    Refused,
    /// It takes effect, and from that instant on nobody reaches the API.
    Parting,
}

impl Patch {
    pub(super) fn takes_effect(self) -> bool {
        matches!(self, Self::Taken | Self::ReplyLost | Self::Parting)
    }

    /// `open`: the stream can be failed over. `goes_on`: by SQL it is a procedure, by the API one order.
    pub(super) fn answer(self, open: bool, goes_on: bool) -> PromotionResult {
        match self {
            Self::Taken if open || goes_on => PromotionResult::Done,
            // Others were faster: outside of what the API allows.
            Self::Taken => PromotionResult::Refused("400: not replicating".into()),
            Self::ReplyLost | Self::Lost | Self::Parting => PromotionResult::Unknown("no reply".into()),
            Self::NotSent => PromotionResult::NotSent("connection refused".into()),
            Self::Refused => PromotionResult::Refused("403: not allowed".into()),
        }
    }
}
