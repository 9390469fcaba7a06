/* The three tables made from the templates. Single-threaded or in a fixed order throughout: the results that
 * golden files and the parity tests are measured against. */
#ifndef XKD_BACKEND_REF_REF_H
#define XKD_BACKEND_REF_REF_H

#include "backend/backend.h"

const xkd_ops *xkd_ref_ops_f32(void);
const xkd_ops *xkd_ref_ops_f64(void);
const xkd_ops *xkd_ref_ops_bf16(void);

/* Views are made of bytes and samples: they are the same in all tables. */
void xkd_ref_video_view(xkd_backend *be, float *clip, const xkd_video_view_args *args);
void xkd_ref_audio_view(xkd_backend *be, float *spec, const xkd_audio_view_args *args);

#endif
