//! The optimisers' kernels as operations of Burn's `flex` backend. They run outside the graph.

use vultus_kernels::{muon, optimizer};

use super::*;
use crate::operations::{AdamUpdate, MuonUpdate, SgdUpdate};

/// Optimiser updates, in place where the tensors are not shared.
#[backend_extension(Flex)]
pub(crate) trait Updates: Backend {
    fn adam(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first_moment: FloatTensor<Self>,
        second_moment: FloatTensor<Self>,
        update: AdamUpdate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);

    fn sgd(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        update: SgdUpdate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    fn muon(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        velocity: FloatTensor<Self>,
        shape: [usize; 2],
        update: MuonUpdate,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

impl Updates for Flex {
    fn adam(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first_moment: FlexTensor,
        second_moment: FlexTensor,
        update: AdamUpdate,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let gradient = contiguous(gradient);
        let (mut parameter, mut first, mut second) =
            (contiguous(parameter), contiguous(first_moment), contiguous(second_moment));
        optimizer::adam(&update, parameter.storage_mut(), values(&gradient), first.storage_mut(), second.storage_mut());
        give(gradient);
        (parameter, first, second)
    }

    fn sgd(
        parameter: FlexTensor,
        gradient: FlexTensor,
        velocity: FlexTensor,
        update: SgdUpdate,
    ) -> (FlexTensor, FlexTensor) {
        let (gradient, mut parameter, mut velocity) =
            (contiguous(gradient), contiguous(parameter), contiguous(velocity));
        optimizer::sgd(&update, parameter.storage_mut(), values(&gradient), velocity.storage_mut());
        give(gradient);
        (parameter, velocity)
    }

    fn muon(
        parameter: FlexTensor,
        gradient: FlexTensor,
        velocity: FlexTensor,
        shape: [usize; 2],
        update: MuonUpdate,
    ) -> (FlexTensor, FlexTensor) {
        let (mut gradient, mut parameter, mut velocity) =
            (contiguous(gradient), contiguous(parameter), contiguous(velocity));
        muon::muon(&update, shape, parameter.storage_mut(), gradient.storage_mut(), velocity.storage_mut());
        give(gradient);
        (parameter, velocity)
    }
}
