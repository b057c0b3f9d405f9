use super::*;

#[test]
fn boxes_are_clipped_to_the_picture() {
    let inside = |bounds| Area::inside(100, 50, bounds).map(|area| [area.x, area.y, area.width, area.height]);
    assert_eq!(inside([10.4, 5.6, 20.0, 10.0]), Some([10, 6, 20, 10]));
    assert_eq!(inside([-5.0, -5.0, 200.0, 200.0]), Some([0, 0, 100, 50]));
    assert_eq!(inside([90.0, 40.0, 30.0, 30.0]), Some([90, 40, 10, 10]));
    for outside in [[100.0, 0.0, 9.0, 9.0], [-9.0, 0.0, 9.0, 9.0], [0.0, 60.0, 9.0, 9.0], [f32::NAN; 4]] {
        assert_eq!(inside(outside), None, "{outside:?}");
    }
}

#[test]
fn overlap_is_common_over_all_area() {
    let area = |x, y, width, height| Area { x, y, width, height };
    assert_eq!(area(0, 0, 10, 10).overlap(&area(0, 0, 10, 10)), 1.0);
    assert_eq!(area(0, 0, 10, 10).overlap(&area(10, 0, 10, 10)), 0.0);
    assert_eq!(area(0, 0, 10, 10).overlap(&area(5, 0, 10, 10)), 50.0 / 150.0);
}
