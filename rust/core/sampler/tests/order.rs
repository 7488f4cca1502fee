//! Chains in any order.

use super::*;

/// Every order of some of the stages.
fn chain() -> impl Strategy<Value = Vec<StageName>> {
    (Just(StageName::ALL.to_vec()).prop_shuffle(), 0..=StageName::ALL.len()).prop_map(|(mut chain, n)| {
        chain.truncate(n);
        chain
    })
}

/// Options with every stage on.
fn on() -> impl Strategy<Value = SamplerOptions> {
    let first =
        (chain(), prop_oneof![Just(0.0f32), Just(1e-38), Just(3e38), 0.1f32..3.0], 0.0f32..2.0, 0u32..3, any::<u64>());
    let second = (0usize..50, 0.01f32..=1.0, 0.0f32..=1.0, 0.01f32..=1.0, -1.0f32..3.0, 0.0f32..=1.0, 0.0f32..=1.0);
    let third = (0.5f32..2.0, -2.0f32..2.0, 0.0f32..5.0, 0usize..3);
    (first, second, third).prop_map(
        |(
            (chain, temperature, dynatemp_range, mirostat, seed),
            (top_k, top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold),
            (repeat_penalty, presence_penalty, dry_multiplier, dry_allowed_length),
        )| SamplerOptions {
            chain: Some(chain),
            dynatemp_range: if temperature > 100.0 { 0.0 } else { dynatemp_range },
            dry_sequence_breakers: Vec::new(),
            temperature,
            mirostat,
            seed,
            top_k,
            top_p,
            min_p,
            typical_p,
            top_n_sigma,
            xtc_probability,
            xtc_threshold,
            repeat_penalty,
            presence_penalty,
            dry_multiplier,
            dry_allowed_length,
            ..SamplerOptions::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_order_gives_a_token_that_is_not_masked(row in logits(), options in on(), history in prop::collection::vec(0u32..6, 0..60)) {
        let mut sampler = Sampler::new(&options, row.len()).unwrap();
        history.iter().for_each(|&token| sampler.accept(token));
        for position in 0..3 {
            let token = sampler.sample(&mut row.clone(), position).unwrap();
            prop_assert!(row[token as usize] > f32::NEG_INFINITY);
            let _ = sampler.sample(&mut row.clone(), position + 1).unwrap();
            prop_assert_eq!(sampler.sample(&mut row.clone(), position).unwrap(), token);
            sampler.accept(token);
        }
    }

    /// What is in the chain is what its stages do one after the other, each on the row that the last one left.
    #[test]
    fn stages_follow_each_other_as_named(row in logits(), options in on(), history in prop::collection::vec(0u32..6, 0..40)) {
        let options = SamplerOptions { mirostat: 0, temperature: options.temperature.clamp(0.1, 3.0), ..options };
        let setup = Setup { options: &options, vocab: row.len(), breakers: &DryBreakers::default() };
        let mut stages = chain::chain(&setup).unwrap();
        stages.iter_mut().for_each(|stage| history.iter().for_each(|&token| stage.accept(token, None)));
        let mut whole = row.clone();
        let mut candidates = Candidates::new(&mut whole, Vec::new());
        stages.iter_mut().for_each(|stage| stage.apply(&mut candidates, 7));
        let mut left: Vec<(u32, f32)> = candidates.list().iter().map(|c| (c.id, c.logit)).collect();
        left.sort_by_key(|c| c.0);
        let mut apart = row;
        for stage in &mut stages {
            let mut candidates = Candidates::new(&mut apart, Vec::new());
            stage.apply(&mut candidates, 7);
            candidates.list();
            candidates.logits();
        }
        let apart: Vec<(u32, f32)> = (0..).zip(apart).filter(|c| c.1 > f32::NEG_INFINITY).collect();
        prop_assert_eq!(left, apart);
    }
}

#[test]
fn the_usual_order_is_the_default() {
    let named = SamplerOptions { chain: Some(StageName::ALL.to_vec()), ..SamplerOptions::default() };
    for position in 0..50 {
        let row: Vec<f32> = (0..500).map(|id| philox::uniform(position, id) as f32 * 9.0).collect();
        let draw = |options: &SamplerOptions| {
            Sampler::new(options, 500).unwrap().sample(&mut row.clone(), position as usize).unwrap()
        };
        assert_eq!(draw(&named), draw(&SamplerOptions::default()));
    }
}

/// The order counts: of 0.4, 0.3, 0.2, 0.1 a nucleus of 0.5 is two tokens, but of the three best ones at a third of the temperature it
/// is one.
#[test]
fn the_order_counts() {
    let row = [0.4f32, 0.3, 0.2, 0.1].map(f32::ln);
    let kept = |names: &[&str]| {
        let chain = StageName::chain(names).unwrap();
        let options = SamplerOptions { temperature: 0.3, top_k: 3, top_p: 0.5, chain: Some(chain), ..off() };
        let setup = Setup { options: &options, vocab: 4, breakers: &DryBreakers::default() };
        let mut row = row;
        let mut candidates = Candidates::new(&mut row, Vec::new());
        chain::chain(&setup).unwrap().iter_mut().for_each(|stage| stage.apply(&mut candidates, 0));
        candidates.list().len()
    };
    assert_eq!(kept(&["top_k", "top_p", "temperature"]), 2);
    assert_eq!(kept(&["temperature", "top_k", "top_p"]), 1);
    assert_eq!(kept(&["top_k"]), 3);
    assert_eq!(kept(&[]), 4);
}

/// A penalty divides positive logits and multiplies negative ones, so the temperature before it must keep the sign.
#[test]
fn penalties_behind_the_temperature_see_the_sign() {
    let chain = StageName::chain(["temperature", "penalties"]).unwrap();
    let options = SamplerOptions { temperature: 0.5, repeat_penalty: 2.0, chain: Some(chain), ..off() };
    let mut sampler = Sampler::new(&options, 3).unwrap();
    sampler.accept(0);
    // 2 becomes 4 and then 2: less than 3.5, which a logit relative to the largest would not show.
    let mut row = [2.0, 1.75, -60.0];
    let mut candidates = Candidates::new(&mut row, Vec::new());
    sampler.chain.iter_mut().for_each(|stage| stage.apply(&mut candidates, 0));
    let mut list: Vec<(u32, f32)> = candidates.list().iter().map(|c| (c.id, c.logit)).collect();
    list.sort_by_key(|c| c.0);
    assert_eq!(list, [(0, 2.0), (1, 3.5), (2, -120.0)]);
}

#[test]
fn names() {
    for stage in StageName::ALL {
        assert_eq!(StageName::from_name(stage.name()).unwrap(), *stage);
    }
    assert_eq!(StageName::from_name("typ_p").unwrap(), StageName::Typical);
    let error = StageName::chain(["top_k", "nucleus"]).unwrap_err().to_string();
    assert!(
        error.contains("\"nucleus\"") && error.contains("penalties, dry, top_n_sigma, top_k, typical_p"),
        "{error}"
    );
    let error = StageName::chain(["typ_p", "top_k", "typical_p"]).unwrap_err().to_string();
    assert!(error.contains("typical_p must come at most once"), "{error}");
    let twice = SamplerOptions { chain: Some(vec![StageName::Dry, StageName::Dry]), ..off() };
    assert!(twice.validate(3).unwrap_err().to_string().contains("dry must come at most once"));
}
