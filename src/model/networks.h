/* All networks of XKD and its variants, declared into one parameter table; method.md sections 4, 8 and 9. */
#ifndef XKD_MODEL_NETWORKS_H
#define XKD_MODEL_NETWORKS_H

#include "model/autoencoder.h"
#include "model/backbone.h"
#include "nn/head.h"

typedef struct {
    xkd_model_config config;
    xkd_params params;
    xkd_backbone student[XKD_MODALITIES], teacher[XKD_MODALITIES];
    xkd_head student_head[XKD_MODALITIES], teacher_head[XKD_MODALITIES];
    xkd_decoder decoder[XKD_MODALITIES];
    xkd_param *centre[XKD_MODALITIES]; /* [1,K], by the teacher's modality: vt2as, at2vs */
} xkd_networks;

/* Declares everything; memory comes with xkd_params_allocate(&out->params, ...). Free with xkd_networks_free. */
xkd_status xkd_networks_declare(xkd_context *cx, xkd_networks *out, const xkd_model_config *config);
void xkd_networks_free(xkd_networks *n);

/* "vid" or "aud", as public names begin. */
const char *xkd_modality_prefix(xkd_modality modality);

#endif
