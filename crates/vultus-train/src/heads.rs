//! What a network answers while it is trained: the labels, and perhaps FER+'s votes beside them.
//!
//! In: a network's last layer. Out: the same with columns for the votes behind those of the labels, and what becomes the
//! model: the labels' alone. Both answer from the same features, which what ten people saw in a picture shapes more than one
//! label does (Caruana 1997, "Multitask learning", section 2).

use vultus::network::ResolvedNetwork;
use vultus::weights::{WeightTensor, Weights};

use crate::source::ferplus::EXPRESSIONS;

/// The columns of a network's last layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Heads {
    /// Classes of the labels.
    pub labels: usize,
    /// Weight of the votes' loss beside that of the labels; 0 without columns for them.
    pub votes_weight: f64,
}

impl Heads {
    /// Columns for the votes.
    pub fn votes(self) -> usize {
        if self.votes_weight > 0.0 { EXPRESSIONS } else { 0 }
    }

    /// All columns.
    pub fn columns(self) -> usize {
        self.labels + self.votes()
    }

    /// Weights of `network`, which has all columns: `answering` the labels, and for the votes those that `fresh` gives.
    pub fn join(self, network: &ResolvedNetwork, answering: Weights, fresh: impl FnOnce() -> Weights) -> Weights {
        if self.votes() == 0 {
            return answering;
        }
        let fresh = fresh();
        self.with_head(network, answering, |name, labels| {
            let fresh = fresh.get(name).expect("weights of the network");
            let rows = labels.data.chunks_exact(self.labels).zip(fresh.data.chunks_exact(self.columns()));
            rows.flat_map(|(labels, fresh)| labels.iter().chain(&fresh[self.labels..]).copied()).collect()
        })
    }

    /// Of the weights of `network`, which has all columns, those that answer the labels.
    pub fn answering(self, network: &ResolvedNetwork, weights: Weights) -> Weights {
        self.with_head(network, weights, |_, all| {
            all.data.chunks_exact(self.columns()).flat_map(|row| &row[..self.labels]).copied().collect()
        })
    }

    /// The weights with other columns of the last layer, whose tensors have the columns last.
    fn with_head(
        self,
        network: &ResolvedNetwork,
        mut weights: Weights,
        columns: impl Fn(&str, &WeightTensor) -> Vec<f32>,
    ) -> Weights {
        if self.votes() == 0 {
            return weights;
        }
        for spec in network.layers.last().into_iter().flat_map(|head| &head.parameters) {
            let before = weights.get(&spec.name).expect("weights of the network");
            let data = columns(&spec.name, before);
            let rows = spec.len() / self.columns();
            let mut shape = before.shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = data.len() / rows;
            }
            weights.insert(spec.name.clone(), WeightTensor { shape, data });
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use vultus::network::{FlattenConfig, LayerConfig, NetworkConfig};

    use super::*;
    use crate::model::initial_weights;

    #[test]
    fn what_is_joined_is_answered_as_before() {
        let config = NetworkConfig { layers: vec![LayerConfig::Flatten(FlattenConfig {})] };
        let heads = Heads { labels: 3, votes_weight: 0.5 };
        let [narrow, wide] = [3, heads.columns()].map(|classes| config.resolve(2, 2, classes).unwrap());
        let (labels, fresh) = (initial_weights(&narrow, 1), initial_weights(&wide, 2));
        let joined = heads.join(&wide, labels.clone(), || fresh.clone());
        joined.check(&wide).unwrap();
        let (kernel, fresh) =
            (&joined.get("layers.1.weight").unwrap().data, &fresh.get("layers.1.weight").unwrap().data);
        for row in 0..4 {
            assert_eq!(kernel[row * 11..][..3], labels.get("layers.1.weight").unwrap().data[row * 3..][..3]);
            assert_eq!(kernel[row * 11 + 3..][..8], fresh[row * 11 + 3..][..8]);
        }
        assert_eq!(heads.answering(&wide, joined), labels);
        let alone = Heads { votes_weight: 0.0, ..heads };
        assert_eq!((alone.columns(), alone.answering(&narrow, labels.clone())), (3, labels));
    }
}
