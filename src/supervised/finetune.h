/* An encoder with a linear classifier behind it, trained whole (fine-tuning) or the classifier alone, on the frozen encoder;
 * method.md section 10:
 *
 *   clip -> encoder -> mean of the patches, or class token -> [L2 norm] -> [batch norm] -> [dropout] -> linear
 *        -> softmax or sigmoid
 *
 * Batch norm is PyTorch's BatchNorm1d: eps 1e-5, momentum .1, affine; a frozen encoder drops nothing. Learning rates decay from the last layer to the first; weight decay leaves out 1-D tensors, positions and class token. */
#ifndef XKD_SUPERVISED_FINETUNE_H
#define XKD_SUPERVISED_FINETUNE_H

#include "dist/dist.h"
#include "eval/encode/encoder.h"
#include "optim/parts.h"
#include "train/trainer.h"

typedef struct {
    xkd_feature_kind kind; /* MEAN or CLS */
    xkd_classify_kind loss;
    bool l2_norm, batch_norm;
    double dropout;     /* share of the features that are dropped in training */
    double drop_path;   /* stochastic depth of the encoder in training: rate of the last block (nn/block.h) */
    bool frozen;        /* train the classifier alone */
    double layer_decay; /* 1: one learning rate for all */
    double beta1, beta2, eps;
    uint64_t seed; /* of the classifier's weights, dropout and stochastic depth */
} xkd_finetune_options;

/* softmax, mean, no norms, nothing dropped, whole model, layer decay 1, betas .9 .999, eps 1e-8. */
xkd_finetune_options xkd_finetune_defaults(void);

typedef struct {
    xkd_finetune_options options;
    xkd_backend *be;
    xkd_encoder encoder;
    xkd_linear classifier; /* head.weight [K,D], head.bias [K] */
    xkd_norm norm;         /* head.bn.weight, head.bn.bias [D]; of batch norm only, as is what follows */
    xkd_param *running[2]; /* head.bn.running_mean, head.bn.running_var [D] */
    int64_t B, K;
    xkd_view_shape shape; /* of a batch */
    int64_t together;     /* clips that go through the encoder at once: B, or a few of them where it is frozen */
    xkd_backbone_run run;
    xkd_block_scratch scratch;
    xkd_arena arena;
    void *dz;            /* [R,D]; fine-tuning only */
    void *pooled, *unit; /* [B,D] feature; after the L2 norm */
    void *inv;           /* [B] of the L2 norm */
    void *normed;        /* [B,D] after the batch norm */
    void *input;         /* [B,D] of the classifier, after dropout */
    void *dinput;        /* [B,D] */
    void *logits;        /* [B,K]; becomes its gradient */
    double *batch[2];    /* [D] mean and 1/sqrt(var + eps) of the last micro-batch */
    double *next[2];     /* [D] running mean and variance after the step in work */
    void *settled[2];    /* [D] the same as they are stored */
    double *scalars;     /* [2]: loss of the micro-batch; squares of all gradients */
    double *rates;       /* [2] learning rate and weight decay of the step */
    /* What the host draws or brings, and its room on a device. */
    float *keep, *keep_room;     /* [B,D] 0 or 1/(1-dropout) of the last micro-batch */
    float *path, *path_room;     /* [depth,2,B] of stochastic depth, likewise */
    float *clips, *targets;      /* [together,C,T,H,W], [B,K]: room alone */
    xkd_departure departures[2]; /* [together,C,T,H,W] on their way to a device, in turn */
    int64_t sent;                /* calls of them so far */
    float *scores;               /* [B,K] */
    const float *dropout;        /* `keep` where operations can read it */
    xkd_adamw_args *list;        /* [rows] of the parameters; owned */
    int64_t step;                /* steps asked for; names the random draws of the next one */
    int64_t micro;               /* micro-batches done of the step in work */
    xkd_dist *dist;              /* the ranks that train together; NULL: this process alone */
    int64_t accumulate;          /* micro-batches of a step in this process */
    xkd_parts parts;
    /* What a step leaves for the host, in the backend's memory: losses [ranks*accumulate], whether they and all gradients are
     * finite, and the counters [rows] of the parameters. */
    double *left;
    xkd_arena left_room;
    double *gathered; /* [ranks*accumulate] losses with the host, of several ranks alone; owned */
    xkd_arrival arrivals[XKD_STEPS_OPEN];
    int64_t asked, collected; /* steps so far */
    double *moved; /* [ranks*accumulate,2,D] of several ranks: mean and variance of every micro-batch; owned */
} xkd_finetune;

/* Loads the encoder, adds a classifier for K classes (orthogonal weights, zero bias; with source->head the file's own,
 * and XKD_ERR_CHECKPOINT where it has none) and plans batches of `shape`. Free with xkd_finetune_free in any case. */
xkd_status xkd_finetune_new(xkd_context *cx, xkd_backend *be, const xkd_encoder_source *source,
                            const xkd_view_shape *shape, int64_t K, const xkd_finetune_options *options,
                            xkd_finetune *out);
void xkd_finetune_free(xkd_finetune *f);

/* Steps of `accumulate` micro-batches in this process, and as many on all ranks of `dist` (NULL: none); before the first step. */
xkd_status xkd_finetune_share(xkd_context *cx, xkd_finetune *f, xkd_dist *dist, int64_t accumulate);

/* Plans anew for batches of B clips: a last batch of an epoch may be smaller. */
xkd_status xkd_finetune_resize(xkd_context *cx, xkd_finetune *f, int64_t B);

/* What activations, gradients of them and scratch of such a plan take, without taking it; xkd_finetune_resize has to follow before
 * anything is computed. */
xkd_status xkd_finetune_measure(xkd_context *cx, xkd_finetune *f, int64_t B, double *bytes);

/* A step of AdamW is begin, then accumulate micro-batches of clips [B,C,T,H,W] with targets [B,K] whose gradients count `share`
 * (1 / their number), then finish, which asks for the update, on all ranks; collect reads what it has left. The next step may begin
 * before that, on a device that works while the host does other things, but no third one. Nothing has changed where a loss or
 * gradient of any rank is not finite. Clips and targets may be reused when micro_batch returns. */
void xkd_finetune_begin(xkd_finetune *f);
xkd_status xkd_finetune_micro_batch(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets,
                                    double share);
xkd_status xkd_finetune_finish(xkd_context *cx, xkd_finetune *f, double lr, double weight_decay);

/* The oldest step that was not collected: the mean of its micro-batches' losses over all ranks, and whether it changed nothing.
 * Waits for it, and for no later one. The rows' step counts are those of this step then. */
xkd_status xkd_finetune_collect(xkd_finetune *f, double *loss, bool *skipped);

/* All of it, with one micro-batch. XKD_ERR_NUMERIC where it changed nothing. */
xkd_status xkd_finetune_step(xkd_context *cx, xkd_finetune *f, const float *clips, const float *targets, double lr,
                             double weight_decay, double *loss);

/* Scores [B,K] (softmax or sigmoid); nothing is dropped, and batch norm uses its running statistics. */
xkd_status xkd_finetune_scores(xkd_finetune *f, const float *clips, float *scores);

/* Which layer a tensor is in: embedding, positions, class token 0; block i: i + 1; the rest depth + 1. */
int64_t xkd_layer_of(const char *name, int64_t depth);
/* Factor on the learning rate: decay^(depth + 1 - layer). */
double xkd_layer_scale(double decay, int64_t depth, int64_t layer);

/* rows [K,D] become orthonormal (columns where K > D), drawn as torch.nn.init.orthogonal_ does: Q of a normal matrix
 * with the signs that make R's diagonal positive. */
void xkd_orthogonal(double *w, int64_t K, int64_t D, uint64_t seed);

#endif
