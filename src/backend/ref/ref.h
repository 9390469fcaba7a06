#ifndef XKD_BACKEND_REF_REF_H
#define XKD_BACKEND_REF_REF_H

#include "backend/backend.h"

const xkd_ops *xkd_ref_ops_f32(void);
const xkd_ops *xkd_ref_ops_f64(void);

#endif
