//! The choice for a model of 80 layers: equal parts are searched once, and the choice is exact.

use qcc_passes::choose::{Budget, Study};
use qcc_passes::{Options, PassContext};
use qcc_tests::llama::{flat_statistics, llama_70b, usual_error};

#[test]
fn a_model_of_80_layers_is_chosen_for_exactly() {
    let m = llama_70b(80);
    let options = Options::default();
    let mut ctx = PassContext::new(&options);
    ctx.statistics = Some(flat_statistics(&m));
    let mut study = Study::with_errors(&m, &ctx, &usual_error).unwrap();
    let chosen = study.choose(Budget::Divergence(0.01)).unwrap();
    assert_eq!(chosen.overrides.len(), 560);
    let s = chosen.summary;
    assert!(s.feasible && s.chosen.divergence <= 0.01);
    assert_eq!(s.bound, s.cost, "the search was complete");
    assert_eq!(s.groups, 320);
    // What 80 layers have in common is searched once.
    assert!(
        s.search.distinct < 300 && s.search.cut == 0,
        "{:?}",
        s.search
    );
    let [uniform, one_by_one] = [s.uniform.map(|(_, t)| t), s.precision_first];
    for other in [uniform, one_by_one].into_iter().flatten() {
        assert!(s.chosen.mean_micros <= other.mean_micros);
    }
}
