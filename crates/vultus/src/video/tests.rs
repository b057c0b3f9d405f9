use super::*;

#[test]
fn the_larger_frames_are_the_fewer_are_in_memory() {
    let at_once = |width, height, is_camera| {
        let path = "film.mp4".into();
        frames_at_once(&Film { path, is_camera, width, height, frames_per_second: None, seconds: None })
    };
    let sizes = [(64, 48), (1920, 1080), (3840, 2160), (7680, 4320), (8000, 8000)];
    assert_eq!(sizes.map(|(width, height)| at_once(width, height, false)), [8, 8, 4, 1, 1]);
    assert_eq!(sizes.map(|(width, height)| at_once(width, height, true)), [1; 5]);
}
