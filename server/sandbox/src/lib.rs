//! Starts confined processes: policy in, enforcement out.
