//! Where the values of a program lie.
//!
//! In: steps whose places are numbers of values. Out: the same steps with numbers of buffers, few enough that a value's
//! buffer is used again once nothing reads the value any more, and the length of each buffer.

use super::step::{Place, Step};

/// The buffers of a program.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Values of one sample that each buffer holds at most.
    pub(super) lengths: Vec<usize>,
    /// The buffer of the network's input.
    pub(super) input: Place,
    /// The buffers of the results.
    pub(super) outputs: Vec<Place>,
}

/// Gives every value a buffer; `inputs` is the length of the network's input, `outputs` are the values that are its
/// results.
pub(super) fn assign(steps: &mut [Step], inputs: usize, outputs: &[Place]) -> Buffers {
    let mut last_read = vec![0; steps.len() + 1];
    for (index, step) in steps.iter().enumerate() {
        last_read[step.input] = index;
        step.addend.into_iter().for_each(|addend| last_read[addend] = index);
    }
    outputs.iter().for_each(|&value| last_read[value] = steps.len());
    let mut lengths = vec![inputs];
    let mut free: Vec<Place> = Vec::new();
    // The buffer of each value.
    let mut places: Vec<Place> = vec![0];
    for (index, step) in steps.iter_mut().enumerate() {
        let mut dead: Vec<Place> = std::iter::once(step.input).chain(step.addend).collect();
        dead.dedup();
        dead.retain(|&value| last_read[value] == index);
        // In place means over the input, if nothing needs it later and it is not also added.
        let over_input = step.operation.works_in_place()
            && last_read[step.input] == index
            && step.addend.is_none_or(|addend| addend != step.input);
        step.input = places[step.input];
        step.addend = step.addend.map(|addend| places[addend]);
        // What dies here is free only afterwards: the step still reads it.
        let place = if over_input { Some(step.input) } else { free.pop() };
        step.output = place.unwrap_or_else(|| {
            lengths.push(0);
            lengths.len() - 1
        });
        lengths[step.output] = lengths[step.output].max(step.outputs);
        free.extend(dead.into_iter().map(|value| places[value]).filter(|&place| place != step.output));
        places.push(step.output);
    }
    let outputs = outputs.iter().map(|&value| places[value]).collect();
    Buffers { lengths, input: places[0], outputs }
}
