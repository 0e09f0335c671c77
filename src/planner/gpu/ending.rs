//! Which products, of matrices or of a convolution, end in the elementwise work that alone reads them: their kernel then
//! does it with each element before it is stored, and the product itself needs no memory.

use super::plan::Limits;
use super::{Donation, OTHER_BUFFERS};
use crate::planner::fuse::{Class, Group, Groups, Readers};
use crate::planner::tasks::{Program, TaskKind};
use hashbrown::HashSet;

/// Moves products into the row groups that end them. A product is then computed later than before, where its only reader was.
pub fn choose(program: &Program, groups: Groups, donations: &[Donation], limits: &Limits) -> Groups {
    let readers = Readers::of(program);
    let donated = donations.iter().filter_map(|donation| program.outputs.get(donation.output as usize));
    let donated: HashSet<u32> = donated.copied().collect();
    let Groups { mut groups, mut places } = groups;
    let mut moved = vec![false; groups.len()];
    // Of several products that one group reads, the last one.
    for product in (0..groups.len()).rev() {
        let Group::Alone(index) = groups[product] else { continue };
        let task = &program.tasks[index as usize];
        let value = &program.values[task.output as usize];
        if !matches!(task.kind, TaskKind::Contract | TaskKind::Conv(..)) || readers.is_awaited[task.output as usize] {
            continue;
        }
        let Some(reader) = readers.only(task.output, |reader| places[reader as usize].0) else { continue };
        let Group::Rows(rows) = &mut groups[reader as usize] else { continue };
        let mut tasks = [&[index], rows.tasks.as_slice()].concat();
        tasks.sort_unstable();
        let reads = rows.tasks.iter().flat_map(|&task| &program.tasks[task as usize].inputs);
        let fits = rows.row.is_none()
            && rows.product.is_none()
            && rows.size == value.size
            && reads.filter(|window| window.value == task.output).all(|window| window.is_whole(value.size))
            // What is written over is read element by element.
            && !rows.tasks.iter().any(|&task| donated.contains(&program.tasks[task as usize].output))
            && readers.values(program, &tasks) <= limits.buffers - OTHER_BUFFERS;
        if fits {
            (rows.product, rows.tasks) = (Some(index), tasks);
            places[index as usize] = (reader, Class::Tile);
            moved[product] = true;
        }
    }
    let mut stands = moved.iter().map(|moved| !moved);
    groups.retain(|_| stands.next().unwrap_or(true));
    let (mut numbers, mut next) = (Vec::with_capacity(moved.len()), 0);
    for moved in moved {
        numbers.push(next);
        next += u32::from(!moved);
    }
    places.iter_mut().for_each(|place| place.0 = numbers[place.0 as usize]);
    Groups { groups, places }
}
