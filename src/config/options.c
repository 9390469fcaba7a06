/* The table of all keys (method.md section 12). Reading, writing, overrides, help, manual and
 * completion all work from it, so a key is described once. Ranges are those within which the program
 * has a meaning, not those that are sensible. */
#include "config/options.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/spelling.h"
#include "config/config.h"

/* Shorthands for the rows below; C is the field within xkd_config.
 * Offsets instead of pointers, because the table is constant and configurations are many. */
#define AT(C) offsetof(xkd_config, C)
/* One number in [LOW, HIGH]. */
#define INT(KEY, C, LOW, HIGH, INITIAL, HELP)                                                                          \
    {                                                                                                                  \
        .key = KEY, .kind = XKD_OPTION_INT, .offset = AT(C), .count = 1, .low = LOW, .high = HIGH, .initial = INITIAL, \
        .help = HELP                                                                                                   \
    }
/* COUNT numbers that stand one behind the other in the struct. */
#define INTS(KEY, C, COUNT, LOW, HIGH, INITIAL, HELP)                                                  \
    {                                                                                                  \
        .key = KEY, .kind = XKD_OPTION_INT, .offset = AT(C), .count = COUNT, .low = LOW, .high = HIGH, \
        .initial = INITIAL, .help = HELP                                                               \
    }
/* WORD (`off`, `auto`) stands for 0, which may lie outside the range. Zero is the value because most such fields mean
 * `none` or `all` by it. */
#define INT_OR(WORD, KEY, C, LOW, HIGH, INITIAL, HELP)                                                                \
    {                                                                                                                 \
        .key = KEY, .kind = XKD_OPTION_INT, .offset = AT(C), .count = 1, .low = LOW, .high = HIGH, .zero_word = WORD, \
        .initial = INITIAL, .help = HELP                                                                              \
    }
/* One real number in [LOW, HIGH]. */
#define REAL(KEY, C, LOW, HIGH, INITIAL, HELP)                                                      \
    {                                                                                               \
        .key = KEY, .kind = XKD_OPTION_REAL, .offset = AT(C), .count = 1, .low = LOW, .high = HIGH, \
        .initial = INITIAL, .help = HELP                                                            \
    }
#define REALS(KEY, C, COUNT, LOW, HIGH, INITIAL, HELP)                                                  \
    {                                                                                                   \
        .key = KEY, .kind = XKD_OPTION_REAL, .offset = AT(C), .count = COUNT, .low = LOW, .high = HIGH, \
        .initial = INITIAL, .help = HELP                                                                \
    }
/* HIGH itself is excluded: a momentum or mask ratio of 1 would divide by 0 or leave nothing. */
#define REAL_BELOW(KEY, C, COUNT, LOW, HIGH, INITIAL, HELP)                                             \
    {                                                                                                   \
        .key = KEY, .kind = XKD_OPTION_REAL, .offset = AT(C), .count = COUNT, .low = LOW, .high = HIGH, \
        .below_high = true, .initial = INITIAL, .help = HELP                                            \
    }
#define REAL_OR(WORD, KEY, C, LOW, HIGH, INITIAL, HELP)                                                                \
    {                                                                                                                  \
        .key = KEY, .kind = XKD_OPTION_REAL, .offset = AT(C), .count = 1, .low = LOW, .high = HIGH, .zero_word = WORD, \
        .initial = INITIAL, .help = HELP                                                                               \
    }
/* true or false. */
#define BOOL(KEY, C, INITIAL, HELP)                                                                        \
    {                                                                                                      \
        .key = KEY, .kind = XKD_OPTION_BOOL, .offset = AT(C), .count = 1, .initial = INITIAL, .help = HELP \
    }
/* Two words for false and true, where `true` would not say what is meant. */
#define SWITCH(KEY, C, CHOICES, INITIAL, HELP)                                                                    \
    {                                                                                                             \
        .key = KEY, .kind = XKD_OPTION_BOOL, .offset = AT(C), .count = 1, .choices = CHOICES, .initial = INITIAL, \
        .help = HELP                                                                                              \
    }
/* Any text; the configuration owns a copy. */
#define TEXT(KEY, C, INITIAL, HELP)                                                                        \
    {                                                                                                      \
        .key = KEY, .kind = XKD_OPTION_TEXT, .offset = AT(C), .count = 1, .initial = INITIAL, .help = HELP \
    }
/* One of CHOICES; the field holds its number, which is the enum's value. */
#define CHOICE(KEY, C, CHOICES, INITIAL, HELP)                                                                      \
    {                                                                                                               \
        .key = KEY, .kind = XKD_OPTION_CHOICE, .offset = AT(C), .count = 1, .choices = CHOICES, .initial = INITIAL, \
        .help = HELP                                                                                                \
    }
/* A name that stands for several sizes, or a map of them. */
#define PRESET(KIND, KEY, C, INITIAL, HELP)                                                     \
    {                                                                                           \
        .key = KEY, .kind = KIND, .offset = AT(C), .count = 1, .initial = INITIAL, .help = HELP \
    }
/* A second name. It is not written, so files show one form. */
#define ALIAS(KEY, OF)                                                               \
    {                                                                                \
        .key = KEY, .kind = XKD_OPTION_ALIAS, .initial = OF, .help = "short for " OF \
    }
/* A key with one accepted value: others ask for what does not exist here, and to ignore them would be
 * to do something else. */
#define FIXED(KEY, CHOICES, HELP)                                              \
    {                                                                          \
        .key = KEY, .kind = XKD_OPTION_FIXED, .choices = CHOICES, .help = HELP \
    }
/* A key of the release without effect here; it is named in the log. */
#define IGNORED(KEY, HELP)                                   \
    {                                                        \
        .key = KEY, .kind = XKD_OPTION_IGNORED, .help = HELP \
    }

/* A list of up to XKD_LIST_LIMIT numbers, each in [LOW, HIGH]. */
#define LIST(KEY, C, LOW, HIGH, INITIAL, HELP)                                                                   \
    {                                                                                                            \
        .key = KEY, .kind = XKD_OPTION_LIST, .offset = AT(C), .count = XKD_LIST_LIMIT, .low = LOW, .high = HIGH, \
        .initial = INITIAL, .help = HELP                                                                         \
    }
/* An encoder file decides its own geometry; what an evaluation file says about it is checked against nothing. */
#define BACKBONE(KEY)                                                                                                \
    IGNORED(KEY ".frame_size", "the encoder decides"), IGNORED(KEY ".num_frames", "the encoder decides"),            \
        IGNORED(KEY ".patch_spatial", "the encoder decides"), IGNORED(KEY ".patch_temporal", "the encoder decides"), \
        IGNORED(KEY ".spec_size", "the encoder decides"), IGNORED(KEY ".apply_cls_token", "the encoder decides"),    \
        IGNORED(KEY ".vit_config", "the encoder decides"), ALIAS(KEY ".drop_path_rate", "eval.drop_path"),           \
        FIXED(KEY ".drop_rate", "0|0.0", "no dropout inside, as in every released file")

/* The parts of an encoder or decoder given as a map. Without defaults of their own: the preset sets them. */
#define VIT(KEY, C, WHAT)                                                 \
    INT(KEY ".embed_dim", C.width, 1, 65536, NULL, "width of the " WHAT), \
        INT(KEY ".depth", C.depth, 1, 1024, NULL, "blocks of the " WHAT), \
        INT(KEY ".num_heads", C.heads, 1, 1024, NULL, "attention heads of the " WHAT)

/* The keys of one kind of video view, as in the release; method.md section 2. */
#define VIDEO_VIEW(KEY, V, COLOR, SCALE, FLIP, GRAY, BLUR, WHAT)                                        \
    REALS(KEY ".color", data.video_view[V].color, 4, 0, 1, COLOR,                                       \
          "jitter of brightness, contrast, saturation and hue of " WHAT " video views"),                \
        REALS(KEY ".crop_scale", data.video_view[V].crop_scale, 2, 1e-4, 1, SCALE,                      \
              "area of the random resized crop, smallest and largest"),                                 \
        REAL(KEY ".p_flip", data.video_view[V].p_flip, 0, 1, FLIP, "probability of a horizontal flip"), \
        REAL(KEY ".p_gray", data.video_view[V].p_gray, 0, 1, GRAY, "probability of grey"),              \
        REAL(KEY ".p_blur", data.video_view[V].p_blur, 0, 1, BLUR, "probability of a Gaussian blur"),   \
        IGNORED(KEY ".pad_missing", "missing frames are padded on the clip, before the view is cut"),   \
        FIXED(KEY ".normalize", "true", "frames are always normalised"),                                \
        FIXED(KEY ".totensor", "true", "frames always become numbers")

/* Likewise of audio views. `wrap_window` is the release's spelling. */
#define AUDIO_VIEW(KEY, V, VOL, RANDCROP, WHAT)                                                                        \
    REAL(KEY ".vol", data.audio_view[V].volume, 0, 1, VOL, "volume of " WHAT " audio views: factor in 1 -+ vol"),      \
        BOOL(KEY ".voljitter", data.audio_view[V].volume_jitter, "true", "change the volume at random"),               \
        BOOL(KEY ".timewarp", data.audio_view[V].time_warp, "false", "warp the spectrogram along time"),               \
        INT(KEY ".wrap_window", data.audio_view[V].warp_window, 0, 1e6, "0", "farthest warp, in spectrogram columns"), \
        BOOL(KEY ".randcrop", data.audio_view[V].rand_crop, RANDCROP, "random resize crop of the spectrogram"),        \
        REALS(KEY ".virtual_crop_scale", data.audio_view[V].virtual_crop_scale, 2, 1, 16, "[1.0, 1.5]",                \
              "canvas of the random resize crop, height and width as multiples of the spectrogram's"),                 \
        REALS(KEY ".freq_scale", data.audio_view[V].freq_scale, 2, 1e-2, 16, "[0.6, 1.5]",                             \
              "height of its box, smallest and largest"),                                                              \
        REALS(KEY ".time_scale", data.audio_view[V].time_scale, 2, 1e-2, 16, "[0.6, 1.5]",                             \
              "width of its box, smallest and largest"),                                                               \
        FIXED(KEY ".normalize", "true", "spectrograms are always normalised"),                                         \
        IGNORED(KEY ".trim_pad", "sound is cut or padded on the clip, before the view is cut")

/* One schedule of method.md section 7. The release names the first three values differently for lr and the others. */
#define SCHEDULE(KEY, C, WARM, BASE, FINAL, EPOCHS, START, TOP, END, MAX, WHAT)                       \
    REAL(KEY ".warmup_epochs", C.warmup_epochs, 0, 1e6, EPOCHS, "epochs of linear warm-up of " WHAT), \
        REAL(KEY "." WARM, C.warmup, 0, MAX, START, "first value of the warm-up"),                    \
        REAL(KEY "." BASE, C.base, 0, MAX, TOP, WHAT " after the warm-up"),                           \
        REAL(KEY "." FINAL, C.final, 0, MAX, END, WHAT " at the end of the cosine")

/* Temperatures of one modality's teacher and student. */
#define TEMPERATURE(KEY, M, START, END, WHAT)                                                                    \
    REAL(KEY ".warmup_teacher_temp", train.teacher_temp_warmup[M], 1e-4, 100, START,                             \
         "first temperature of the " WHAT " teacher"),                                                           \
        INT(KEY ".warmup_teacher_temp_epochs", train.teacher_temp_warmup_epochs[M], 0, 1e6, "30",                \
            "epochs in which it rises linearly"),                                                                \
        REAL(KEY ".teacher_temp", train.teacher_temp[M], 1e-4, 100, END, "temperature of the " WHAT " teacher"), \
        REAL(KEY ".student_temp", train.student_temp[M], 1e-4, 100, "0.1", "temperature of the " WHAT " student")

/* Rows of one map stand together: the resolved configuration is written in this order. */
static const xkd_option options[] = {
    TEXT("name", name, "XKD", "name of the run, for people"),
    INT("num_node", train.num_node, 1, 1e6, "2",
        "the batch is num_node * batch_size, whatever the number of processes"),
    IGNORED("num_workers", "see data.workers"),
    /* Keys of the release that ask for what does not exist here are named once in the log. Others that name a service
     * or a machine are accepted for the same reason: a released file must run unchanged. */
    IGNORED("apex", "this build computes in float32"),
    IGNORED("apex_opt_level", "this build computes in float32"),
    IGNORED("sync_bn", "a batch is not split over processes"),

    INT("progress.print_freq", run.print_steps, 1, 1e9, "100", "steps between two lines of the text log"),
    BOOL("progress.log2tb", run.tensorboard, "true", "write TensorBoard event files"),
    IGNORED("progress.wandb", "nothing is sent anywhere"),
    IGNORED("progress.wandb_all", "nothing is sent anywhere"),

    IGNORED("dataset.name", "the data set is what --data names"),
    /* Data: what a clip is, in the order in which it is made from the file. */
    INT("dataset.fold", data.fold, 0, 1e6, "1", "stands for {fold} in dataset.train.split"),
    INT("dataset.batch_size", train.batch_size, 1, 1e6, "128", "samples per node"),
    REAL("dataset.clip_duration", data.clip_duration, 0.1, 3600, "4.0", "seconds of a clip and of a global view"),
    REAL("dataset.video_fps", data.video_fps, 0.1, 240, "8.0", "frames a second"),
    INT("dataset.crop_size", data.crop_size, 8, 4096, "112", "side of a global video view, pixels"),
    REAL_OR("clip_duration", "dataset.audio_clip_duration", data.audio_clip_duration, 0.1, 3600, "clip_duration",
            "seconds of a clip of sound alone; with video it must equal dataset.clip_duration"),
    INT("dataset.audio_fps", data.audio_rate, 1000, 384000, "16000", "sound samples a second"),
    INT("dataset.hop_length", data.hop_length, 1, 65536, "143", "samples from one spectrogram column to the next"),
    IGNORED("dataset.audio_fps_out", "follows from audio_fps and hop_length"),
    INT("dataset.n_mels", data.n_mels, 1, 1024, "80", "bands of the log-mel spectrogram"),
    INT("dataset.n_fft", data.n_fft, 16, 65536, "1024", "samples of a Fourier transform"),
    /* Manifests of public sets have the released files' split names. */
    TEXT("dataset.train.split", data.split, "train", "manifest lines to use; empty: all"),
    IGNORED("dataset.train.mode", "pre-training draws one clip per file and epoch"),
    IGNORED("dataset.train.aug_mode", "pre-training always augments"),
    BOOL("dataset.train.use_shuffle", data.shuffle, "true", "a new order every epoch"),
    BOOL("dataset.train.drop_last", data.drop_last, "true", "leave out a last batch that is not full"),
    INT("dataset.train.vid_aug_kwargs.temporal_ratio", data.video_temporal_ratio, 1, 1024, "4",
        "frames of a global view / of a local one"),
    REAL("dataset.train.vid_aug_kwargs.spatial_ratio", data.video_spatial_ratio, 1, 64, "1.16",
         "side of a global view / of a local one"),
    INT("dataset.train.vid_aug_kwargs.num_local_views", data.video_local_views, 0, 15, "1", "local video views"),
    VIDEO_VIEW("dataset.train.vid_aug_kwargs.global", XKD_GLOBAL_VIEW, "[0.4, 0.4, 0.4, 0.2]", "[0.2, 1.0]", "0.5", "0",
               "0", "global"),
    VIDEO_VIEW("dataset.train.vid_aug_kwargs.local", XKD_LOCAL_VIEW, "[0.4, 0.4, 0.4, 0.2]", "[0.08, 0.4]", "0.5",
               "0.2", "0.5", "local"),
    INT("dataset.train.aud_aug_kwargs.temporal_ratio", data.audio_temporal_ratio, 1, 1024, "4",
        "sound of a global view / of a local one"),
    INT("dataset.train.aud_aug_kwargs.num_local_views", data.audio_local_views, 0, 15, "1", "local audio views"),
    AUDIO_VIEW("dataset.train.aud_aug_kwargs.global", XKD_GLOBAL_VIEW, "0.1", "false", "global"),
    AUDIO_VIEW("dataset.train.aud_aug_kwargs.local", XKD_LOCAL_VIEW, "0.2", "true", "local"),

    INT("hyperparams.num_epochs", train.epochs, 1, 1e6, "800", "passes over the data"),
    FIXED("hyperparams.optimizer.name", "adamw", "AdamW is the only optimiser"),
    REAL_BELOW("hyperparams.optimizer.betas", train.betas, 2, 0, 1, "[0.9, 0.95]", "decay of AdamW's two moments"),
    REAL("hyperparams.optimizer.eps", train.eps, 1e-20, 1, "1e-8", "added to the root of the second moment"),
    SCHEDULE("hyperparams.lr", train.lr, "warmup_lr", "base_lr", "final_lr", "30", "0", "0.0001", "0", 1e3,
             "learning rate"),
    REAL_OR("off", "hyperparams.lr.scale_to_batch", train.lr_scale_to_batch, 0, 1e9, "off",
            "n: learning rates are those for a batch of n, and used times batch / n"),
    SCHEDULE("hyperparams.weight_decay", train.weight_decay, "warmup", "base", "final", "0", "0", "0.3", "0.3", 1e3,
             "weight decay"),
    SCHEDULE("hyperparams.vid_ema", train.ema[XKD_VIDEO], "warmup", "base", "final", "0", "0", "0.997", "1", 1,
             "EMA momentum of the video teacher"),
    SCHEDULE("hyperparams.aud_ema", train.ema[XKD_AUDIO], "warmup", "base", "final", "0", "0", "0.997", "1", 1,
             "EMA momentum of the audio teacher"),

    /* The model and its losses; the sizes are those of the paper. */
    CHOICE("model.name", model.variant, "XKD|XKD_MAS|XKD_MATS", "XKD",
           "modality-specific encoders, modality-agnostic students, or agnostic students and teachers"),
    INTS("model.kwargs.frame_size", model.channels, 3, 1, 4096, "[3, 112, 112]",
         "channels, height and width of frames"),
    INT("model.kwargs.num_frames", model.num_frames, 1, 4096, "32", "frames of a global view"),
    INTS("model.kwargs.vid_patch_spatial", model.vid_patch_h, 2, 1, 4096, "[16, 16]", "height and width of a patch"),
    INT("model.kwargs.vid_patch_temporal", model.vid_patch_t, 1, 4096, "4", "frames of a patch"),
    INTS("model.kwargs.spec_size", model.spec_freq, 2, 1, 65536, "[80, 448]",
         "bands and columns of a global spectrogram"),
    INTS("model.kwargs.spec_patch_spatial", model.spec_patch_f, 2, 1, 4096, "[4, 16]", "bands and columns of a patch"),
    BOOL("model.kwargs.apply_cls_token", model.cls_token, "true", "put a class token in front of the patches"),
    PRESET(XKD_OPTION_ENCODER, "model.kwargs.teacher_cfg", model.teacher, "base_encoder",
           "tiny, tiny_h6, small, small_h12, base or large, or a map; must equal student_cfg"),
    VIT("model.kwargs.teacher_cfg", model.teacher, "teachers"),
    PRESET(XKD_OPTION_ENCODER, "model.kwargs.student_cfg", model.student, "base_encoder",
           "tiny, tiny_h6, small, small_h12, base or large, or a map"),
    VIT("model.kwargs.student_cfg", model.student, "students"),
    PRESET(XKD_OPTION_DECODER, "model.kwargs.decoder_cfg", model.decoder, "base_decoder",
           "tiny, tiny_d1, small, small_d1, base, base_d1 or large, or a map"),
    VIT("model.kwargs.decoder_cfg", model.decoder, "decoders"),
    PRESET(XKD_OPTION_HEAD, "model.kwargs.projector_cfg", model.head, "2048-gelu-3-256-8192-norm3",
           "HIDDEN-gelu-3-BOTTLENECK-OUTPUTS-norm3, or a map"),
    INT("model.kwargs.projector_cfg.hidden_dim", model.head.hidden, 1, 1 << 20, NULL, "hidden width of the head"),
    INT("model.kwargs.projector_cfg.bottleneck_dim", model.head.bottleneck, 1, 1 << 20, NULL,
        "width before the last layer"),
    INT("model.kwargs.projector_cfg.out_dim", model.head.outputs, 2, 1 << 24, NULL, "outputs of the head, K"),
    /* A momentum of 1 keeps the centre where it starts. */
    REALS("model.kwargs.center_momentum", model.center_momentum, 2, 0, 1, "[0.9, 0.9]",
          "momentum of the centres: video teacher to audio student, audio teacher to video student"),
    BOOL("model.kwargs.norm_pix_loss", model.norm_pix_loss, "true", "normalise each target patch"),
    FIXED("model.kwargs.masking_fn", "random_masking", "random masking is the only form"),
    CHOICE("model.kwargs.align_loss", model.align_loss, "mmd|coral", "mmd", "domain alignment loss"),
    TEMPERATURE("model.video_temp_kwargs", XKD_VIDEO, "0.1", "0.1", "video"),
    TEMPERATURE("model.audio_temp_kwargs", XKD_AUDIO, "0.07", "0.07", "audio"),
    INT("model.fwd_kwargs.global_views_number", step.global_views, 1, 8, "1", "global views a sample"),
    REAL_BELOW("model.fwd_kwargs.vid_mask_ratio", step.mask_ratio[XKD_VIDEO], 1, 0, 1, "0.85", "masked video patches"),
    REAL_BELOW("model.fwd_kwargs.aud_mask_ratio", step.mask_ratio[XKD_AUDIO], 1, 0, 1, "0.8", "masked audio patches"),
    CHOICE("model.fwd_kwargs.cm_attn_mode", step.attn_mode, "mean|softmax", "mean",
           "how cross-modal attention is normalised in the teachers' refinement"),
    IGNORED("model.fwd_kwargs.align_mode", "students are aligned with students, teachers with teachers"),
    BOOL("model.fwd_kwargs.refine", step.refine, "true", "refine the teachers' features by cross-modal attention"),
    CHOICE("model.fwd_kwargs.teacher_view", step.teacher_view, "global|local", "global",
           "what teachers see: the global view (paper) or the first local one (released code)"),
    REAL("model.fwd_kwargs.align_coeff", step.align_coeff, 0, 1e6, "1", "weight of domain alignment"),
    REAL("model.fwd_kwargs.cmkd_coeff", step.cmkd_coeff, 0, 1e6, "1", "weight of cross-modal distillation"),
    REAL("model.fwd_kwargs.recon_coeff", step.recon_coeff, 0, 1e6, "5", "weight of masked reconstruction"),
    REAL_OR("off", "model.fwd_kwargs.clip_grad", step.clip_grad, 0, 1e6, "0.3",
            "largest gradient norm of each student tensor"),
    INT("model.fwd_kwargs.freeze_last_layer", step.freeze_last_layer, 0, 1e6, "0",
        "epochs in which the heads' last layer is not trained"),
    INT_OR("off", "model.fwd_kwargs.mmd_group", step.mmd_group, 0, 1e6, "off",
           "samples per MMD group: one process then equals many ranks of n samples; off: the whole micro-batch"),
    CHOICE("model.fwd_kwargs.modality", step.modality, "both|video|audio", "both",
           "video or audio: that autoencoder alone, an ablation"),

    /* From here on: keys that the release does not have. Their maps (data, train, run, eval) are this program's own. */
    TEXT("data.path", data.path, "", "folder or manifest, as --data"),
    INT_OR("auto", "data.workers", data.workers, 1, 256, "auto", "decoding processes; auto: one per processor"),
    {.key = "data.cache",
     .kind = XKD_OPTION_CACHE,
     .count = 1,
     .offset = AT(data.cache),
     .initial = "none",
     .help = "keep decoded clips: none (off), ram, or a folder"},
    CHOICE("data.audio_policy", data.audio_policy, "require|silence|drop", "require",
           "files without sound: refuse, take as silence, or leave out"),
    /* In training the limit is on files, not clips, and has a floor, so that a small set survives a few. */
    REAL("data.max_bad_fraction", data.max_bad_fraction, 0, 1, "0.01",
         "share of files that may be unreadable (of training files and lists at least 10), and of encoded clips that "
         "may "
         "be damaged"),
    REAL_OR("auto", "data.max_absent_fraction", data.max_absent_fraction, 1e-9, 1, "auto",
            "share of a data set's listed files that may be absent; auto: 0.01, of sets from YouTube 0.15"),
    REAL("data.max_clip_damage", data.max_clip_damage, 0, 1, "0.1",
         "share of a clip's pictures or of its sound that may be damaged or missing; past it another clip is drawn, or "
         "the "
         "clip is named where all are encoded"),
    INT("data.audio_track", data.audio_track, 0, 256, "0",
        "which of a file's sound tracks counts, from 1; 0: the one marked as default, else the first"),
    BOOL("data.hold_last_frame", data.hold_last_frame, "false",
         "show the last picture to the end of the sound: for still pictures with a song"),
    REAL_OR(
        "auto", "data.cache_memory", data.cache_memory, 1e-6, 1e6, "auto",
        "GB of decoded files that data.cache=ram may hold, and of one file of a folder; auto: half of the free memory"),
    REAL("data.decode_seconds", data.decode_seconds, 0.1, 3600, "20", "time limit of one clip"),
    REAL("data.file_memory", data.file_memory, 1e-6, 1e6, "4",
         "GB of frames and of sound held of one file for training and test clips; longer files are refused"),
    BOOL("data.follow_links", data.follow_links, "false", "follow links that lead out of the data folder"),
    SWITCH("data.colour", data.stream_colour, "default|stream", "default",
           "colour matrix: swscale's default or what the file says"),
    SWITCH("data.blur", data.release_blur, "drawn|release", "drawn",
           "blur: one sigma drawn from [0.1, 2], or the release's 0.1 and 2 along the two axes"),
    REAL("data.mel_mean", data.mel_mean, -1e3, 1e3, "-5.3688107", "subtracted from spectrograms"),
    REAL("data.mel_std", data.mel_std, 1e-6, 1e6, "4.410007", "spectrograms are divided by it"),

    /* 2^53: what a double, by which a range is checked, and JSON hold exactly. */
    INT("train.seed", train.seed, 0, 9007199254740992.0, "0", "all random numbers follow from it"),
    INT("train.accumulate", train.accumulate, 1, 65536, "1",
        "micro-batches a step and process: MMD then compares the samples of one micro-batch, as mmd_group does; "
        "centres "
        "average all"),
    INT_OR("auto", "train.parts", train.parts, 1, 1e6, "auto",
           "micro-batches a step over all ranks; auto: ranks * accumulate. A run keeps it with any number of ranks"),

    SWITCH("train.wire", train.wire_bfloat16, "float32|bfloat16", "float32",
           "gradients between ranks: bfloat16 sends half the bytes, and is no longer to the bit what one process does"),

    TEXT("run.out", run.out, "", "run folder, as --out"),
    TEXT("run.init", run.init, "",
         "weights to start from: a whole model or one backbone, in any form 'xkd inspect' reads; empty: fresh ones"),
    INT_OR("off", "run.save_steps", run.save_steps, 0, 1e9, "off", "steps between checkpoints"),
    REAL_OR("off", "run.save_minutes", run.save_minutes, 0, 1e6, "15", "minutes between checkpoints"),
    INT("run.keep_last", run.keep_last, 1, 1000, "2", "checkpoints to keep"),
    INT_OR("off", "run.picture_steps", run.picture_steps, 0, 1e9, "1000", "steps between reconstruction pictures"),
    INT_OR("off", "run.max_steps", run.max_steps, 0, 1e12, "off", "stop after this many steps"),
    INT("run.max_bad_steps", run.max_bad_steps, 0, 1e9, "10",
        "non-finite steps of the last run.bad_step_window that are skipped before the run stops"),
    REAL("run.peer_timeout", run.peer_timeout, 1, 1e6, "60",
         "seconds without a sign of life or progress after which a rank counts as lost"),
    INT("run.bad_step_window", run.bad_step_window, 1, 1e6, "1000", "steps over which run.max_bad_steps counts"),
    BOOL("run.overfit", run.overfit, "false", "train on the first batch only, to see the loss fall"),
    INT_OR("off", "run.probe_epochs", run.probe_epochs, 0, 1e6, "off",
           "epochs between two looks at the teachers: nearest neighbours and retrieval on held-out files"),
    TEXT("run.probe_data", run.probe_data, "", "manifest or folder of held-out files for the probe"),
    TEXT("run.probe_split", run.probe_split, "", "its lines to use; empty: all"),
    REAL("run.probe_memory", run.probe_memory, 0, 1e6, "1",
         "GB of decoded clips that are kept; where they need more, each probe decodes the files anew"),
    TEXT("run.device", device, "cpu",
         "cpu, or cuda or cuda:N, an NVIDIA GPU; for checking: ref, plain and slow, and guard, whose memory only "
         "operations can "
         "read"),
    ALIAS("run.backend", "run.device"),
    CHOICE("run.precision", precision, "float32|bfloat16|tf32", "float32",
           "of weights, activations and their gradients; with bfloat16 masters, sums and losses stay float32; tf32, "
           "on a GPU, is float32 whose products round what they multiply to 11 bits"),
    CHOICE(
        "run.augment", augment, "auto|cpu|gpu", "auto",
        "where the views of pre-training are made from decoded clips: on the processors that decode, or on run.device, "
        "which then gets frames of 8 and sound of 16 bits; auto: gpu where run.device is cuda, else cpu"),
    INT_OR("auto", "run.threads", threads, 1, 1024, "auto", "threads of a step; results do not depend on it"),

    /* Behind their maps: fixed keys are not written, so the order of written keys is not disturbed. */
    FIXED("hyperparams.weight_decay.name", "cosine", "cosine is the only form"),
    FIXED("hyperparams.vid_ema.name", "cosine", "cosine is the only form"),
    FIXED("hyperparams.aud_ema.name", "cosine", "cosine is the only form"),

    /* Evaluation: the keys of the released svm_*, linear_* and finetune_* files. Values stand under eval.*, the released
     * names are aliases of them. */
    CHOICE("eval.mode", eval.mode, "finetune|linear", "finetune", "train the whole model, or the classifier alone"),
    INT("eval.frequency", eval.frequency, 1, 1e6, "1", "epochs between two tests"),
    TEXT("eval.test_split", eval.test_split, "test", "manifest lines to test on"),
    TEXT("eval.test_path", eval.test_path, "", "manifest to test on; empty: that of data.path"),
    BOOL("eval.student", eval.student, "false", "start from the student's encoder of a whole model, not the teacher's"),
    INT("eval.train_clips", eval.train_clips, 1, 1e6, "1", "clips of a training video: features, or passes an epoch"),
    INT("eval.test_clips", eval.test_clips, 1, 1e6, "3", "clips of a test video"),
    CHOICE("eval.ensemble", eval.ensemble, "mean|max|sum", "mean", "how scores of a file's clips become one"),
    CHOICE("eval.vid_transform", eval.vid_transform, "global_local|strong3crop|randaug3crop", "global_local",
           "views of pre-training, of frozen features, or of fine-tuning"),
    CHOICE("eval.aud_transform", eval.aud_transform, "global_local|strong", "global_local", "views of sound"),
    BOOL("eval.return_video", eval.return_video, "true", "use the frames"),
    BOOL("eval.return_audio", eval.return_audio, "true", "use the sound"),
    CHOICE("eval.mel_norm", eval.mel_norm, "_KINETICS|_FSD50K|_ESC50|_OPENMIC", "_KINETICS",
           "data set whose mean and deviation normalise spectrograms"),
    REALS("eval.aspect_ratio", eval.aspect_ratio, 2, 0.01, 100, "[0.75, 1.3333]", "shape of the random resized crop"),
    TEXT("eval.auto_augment", eval.auto_augment, "", "RandAugment, e.g. rand-m7-n4-mstd0.5-inc1"),
    INT_OR("off", "eval.short_side", eval.short_side, 8, 8192, "off",
           "fine-tuning: short side to which frames are reduced when decoded; off: as in the file, as released"),
    BOOL("eval.flip", eval.flip, "true", "flip half of the clips when fine-tuning"),
    REAL("eval.erase", eval.erase, 0, 1, "0", "probability of random erasing"),
    BOOL("eval.fmask", eval.frequency_mask, "false", "mask bands of the spectrogram"),
    BOOL("eval.tmask", eval.time_mask, "false", "mask columns of the spectrogram"),
    INTS("eval.fmask_len", eval.frequency_mask_width, 2, 0, 65536, "[0, 10]",
         "width of such a mask, smallest and largest"),
    INTS("eval.tmask_len", eval.time_mask_width, 2, 0, 65536, "[0, 20]", "width of such a mask, smallest and largest"),
    INT("eval.num_fmask", eval.frequency_masks, 0, 64, "2", "masks of bands"),
    INT("eval.num_tmask", eval.time_masks, 0, 64, "2", "masks of columns"),
    CHOICE("eval.lr_form", eval.lr_form, "cosine|fixed|step", "cosine",
           "cosine or steps after the warm-up, or the base rate at all times"),
    LIST("eval.milestones", eval.milestones, 0, 1e6, "[]", "epochs at which a step schedule multiplies by gamma"),
    REAL("eval.gamma", eval.gamma, 0, 1, "0.1", "factor of a step schedule"),
    REAL("eval.layer_decay", eval.layer_decay, 1e-6, 1, "1", "learning rate of a layer / that of the next one"),
    REAL_OR("off", "eval.mixup", eval.mixup, 0, 100, "off", "Beta parameter of mixup"),
    REAL_OR("off", "eval.cutmix", eval.cutmix, 0, 100, "off", "Beta parameter of cutmix"),
    REAL("eval.mixup_prob", eval.mix_probability, 0, 1, "1", "probability that a batch is mixed"),
    REAL("eval.mixup_switch_prob", eval.switch_probability, 0, 1, "0.5", "probability of cutmix where both are on"),
    REAL_BELOW("eval.label_smoothing", eval.label_smoothing, 1, 0, 1, "0", "share of a target spread over all classes"),
    INT_OR("auto", "eval.num_classes", eval.classes, 1, 1e6, "auto", "outputs of the classifier; auto: the manifest's"),
    /* L2 norm, batch norm, dropout, in this order, as in the release. */
    BOOL("eval.l2_norm", eval.l2_norm, "false", "L2-normalise features before the classifier"),
    BOOL("eval.batch_norm", eval.batch_norm, "false", "batch norm between L2 norm and dropout"),
    REAL_BELOW("eval.drop_path", eval.drop_path, 1, 0, 1, "0",
               "stochastic depth when fine-tuning: share of the last block's branches that is dropped"),
    BOOL("eval.use_dropout", eval.use_dropout, "false", "drop features before the classifier"),
    REAL_BELOW("eval.dropout", eval.dropout, 1, 0, 1, "0.5", "share of the features that is dropped"),
    CHOICE("eval.feat_op", eval.feat_op, "pool|cls", "pool", "mean of the patches, or the class token"),
    LIST("eval.svm.cost", eval.cost, 1e-12, 1e12, "[0.001, 0.01, 0.1, 1]", "values of the SVM's C"),
    INT("eval.svm.iter", eval.svm_iterations, 1, 1e9, "1000", "most sweeps of a class"),
    BOOL("eval.svm.scale_features", eval.svm_scale, "false", "zero mean and unit deviation of each feature first"),

    /* Released names. An alias takes the range and default of what it stands for, and is never written. */
    ALIAS("eval_mode", "eval.mode"),
    ALIAS("eval_freq", "eval.frequency"),
    ALIAS("dataset.test.split", "eval.test_split"),
    ALIAS("dataset.train.clips_per_video", "eval.train_clips"),
    ALIAS("dataset.test.clips_per_video", "eval.test_clips"),
    ALIAS("dataset.test.ensemble", "eval.ensemble"),
    ALIAS("dataset.vid_transform", "eval.vid_transform"),
    ALIAS("dataset.aud_transform", "eval.aud_transform"),
    ALIAS("dataset.return_video", "eval.return_video"),
    ALIAS("dataset.return_audio", "eval.return_audio"),
    ALIAS("dataset.train.aud_aug_kwargs.DB_NORM", "eval.mel_norm"),
    ALIAS("dataset.test.aud_aug_kwargs.DB_NORM", "eval.mel_norm"),
    IGNORED("dataset.test.mode", "a test always takes whole files"),
    IGNORED("dataset.test.aug_mode", "a test never augments"),
    IGNORED("dataset.test.drop_last", "a test takes every file"),
    IGNORED("dataset.test.use_shuffle", "the order of a test does not matter"),
    FIXED("dataset.test.vid_aug_kwargs.normalize", "true", "frames are always normalised"),
    FIXED("dataset.test.vid_aug_kwargs.totensor", "true", "frames always become numbers"),
    IGNORED("dataset.test.vid_aug_kwargs.pad_missing", "a short video is repeated from its start"),
    FIXED("dataset.test.aud_aug_kwargs.normalize", "true", "spectrograms are always normalised"),
    IGNORED("dataset.test.aud_aug_kwargs.trim_pad", "short sound is repeated from its start"),
    /* Evaluation files give one view's augmentation without `global`. */
    ALIAS("dataset.train.vid_aug_kwargs.color", "dataset.train.vid_aug_kwargs.global.color"),
    {.key = "dataset.train.vid_aug_kwargs.min_area",
     .kind = XKD_OPTION_AREA,
     .offset = AT(data.video_view[XKD_GLOBAL_VIEW].crop_scale),
     .count = 2,
     .low = 1e-4,
     .high = 1,
     .help = "area of the random resized crop: smallest and largest, or the smallest where the largest is 1"},
    ALIAS("dataset.train.vid_aug_kwargs.p_flip", "dataset.train.vid_aug_kwargs.global.p_flip"),
    ALIAS("dataset.train.vid_aug_kwargs.p_gray", "dataset.train.vid_aug_kwargs.global.p_gray"),
    ALIAS("dataset.train.vid_aug_kwargs.p_blur", "dataset.train.vid_aug_kwargs.global.p_blur"),
    FIXED("dataset.train.vid_aug_kwargs.p_cutout", "0|0.0", "cut-out is off in every released file"),
    IGNORED("dataset.train.vid_aug_kwargs.cutout_size", "cut-out is off in every released file"),
    IGNORED("dataset.train.vid_aug_kwargs.num_of_cutout", "cut-out is off in every released file"),
    ALIAS("dataset.train.vid_aug_kwargs.hflip", "eval.flip"),
    ALIAS("dataset.train.vid_aug_kwargs.aspect_ratio", "eval.aspect_ratio"),
    ALIAS("dataset.train.vid_aug_kwargs.auto_augment", "eval.auto_augment"),
    ALIAS("dataset.train.vid_aug_kwargs.rand_erase.probability", "eval.erase"),
    FIXED("dataset.train.vid_aug_kwargs.rand_erase.mode", "pixel", "a normal draw for every pixel"),
    FIXED("dataset.train.vid_aug_kwargs.rand_erase.max_count", "1", "one box"),
    FIXED("dataset.train.vid_aug_kwargs.rand_erase.num_splits", "1", "every clip may be erased"),
    FIXED("dataset.train.vid_aug_kwargs.normalize", "true", "frames are always normalised"),
    FIXED("dataset.train.vid_aug_kwargs.totensor", "true", "frames always become numbers"),
    IGNORED("dataset.train.vid_aug_kwargs.pad_missing", "missing frames are padded on the clip"),
    ALIAS("dataset.train.aud_aug_kwargs.vol", "dataset.train.aud_aug_kwargs.global.vol"),
    ALIAS("dataset.train.aud_aug_kwargs.voljitter", "dataset.train.aud_aug_kwargs.global.voljitter"),
    ALIAS("dataset.train.aud_aug_kwargs.timewarp", "dataset.train.aud_aug_kwargs.global.timewarp"),
    ALIAS("dataset.train.aud_aug_kwargs.wrap_window", "dataset.train.aud_aug_kwargs.global.wrap_window"),
    ALIAS("dataset.train.aud_aug_kwargs.randcrop", "dataset.train.aud_aug_kwargs.global.randcrop"),
    ALIAS("dataset.train.aud_aug_kwargs.fmask", "eval.fmask"),
    ALIAS("dataset.train.aud_aug_kwargs.tmask", "eval.tmask"),
    ALIAS("dataset.train.aud_aug_kwargs.fmask_len", "eval.fmask_len"),
    ALIAS("dataset.train.aud_aug_kwargs.tmask_len", "eval.tmask_len"),
    ALIAS("dataset.train.aud_aug_kwargs.num_fmask", "eval.num_fmask"),
    ALIAS("dataset.train.aud_aug_kwargs.num_tmask", "eval.num_tmask"),
    FIXED("dataset.train.aud_aug_kwargs.normalize", "true", "spectrograms are always normalised"),
    IGNORED("dataset.train.aud_aug_kwargs.trim_pad", "sound is cut or padded on the clip"),
    ALIAS("hyperparams.lr.name", "eval.lr_form"),
    ALIAS("hyperparams.lr.milestones", "eval.milestones"),
    ALIAS("hyperparams.lr.gamma", "eval.gamma"),
    ALIAS("hyperparams.layer_decay", "eval.layer_decay"),
    ALIAS("hyperparams.mixup", "eval.mixup"),
    ALIAS("hyperparams.cutmix", "eval.cutmix"),
    ALIAS("hyperparams.mixup_prob", "eval.mixup_prob"),
    ALIAS("hyperparams.mixup_switch_prob", "eval.mixup_switch_prob"),
    FIXED("hyperparams.mixup_mode", "batch", "the whole batch is mixed alike"),
    FIXED("hyperparams.cutmix_minmax", "null|none", "the box follows from lambda, as in every released file"),
    ALIAS("hyperparams.label_smoothing", "eval.label_smoothing"),
    IGNORED("hyperparams.optimizer.momentum", "AdamW has none"),
    /* Evaluation files give a number where pre-training has a schedule; both write the same field. */
    {.key = "hyperparams.weight_decay",
     .kind = XKD_OPTION_CONSTANT,
     .offset = AT(train.weight_decay),
     .count = 1,
     .high = 1e3,
     .help = "a number: this weight decay at all times"},
    ALIAS("hyperparams.optimizer.weight_decay", "hyperparams.weight_decay"),
    ALIAS("model.apply_l2", "eval.l2_norm"),
    ALIAS("model.apply_bn", "eval.batch_norm"),
    IGNORED("model.feat_dim", "follows from the encoder"),
    ALIAS("model.fwd_kwargs.feat_op", "eval.feat_op"),
    ALIAS("model.classifier.num_classes", "eval.num_classes"),
    ALIAS("model.classifier.l2_norm", "eval.l2_norm"),
    ALIAS("model.classifier.use_dropout", "eval.use_dropout"),
    ALIAS("model.classifier.dropout", "eval.dropout"),
    ALIAS("model.classifier.use_bn", "eval.batch_norm"),
    ALIAS("model.svm.cost", "eval.svm.cost"),
    ALIAS("model.svm.iter", "eval.svm.iter"),
    ALIAS("model.svm.scale_features", "eval.svm.scale_features"),
    /* An evaluation file repeats the geometry of the encoder that it loads. */
    BACKBONE("model.backbone"),
    BACKBONE("model.vid_backbone"),
    BACKBONE("model.aud_backbone"),

    ALIAS("lr.scale_to_batch", "hyperparams.lr.scale_to_batch"),
    ALIAS("run.print_steps", "progress.print_freq"),
};

/* Known at compile time; the table is never changed. */
enum { OPTIONS = sizeof options / sizeof *options };

int xkd_option_count(void)
{
    return OPTIONS;
}

/* `i` in 0 .. count - 1. */
const xkd_option *xkd_option_at(int i)
{
    return &options[i];
}

/* Linear: some 200 rows, and only for keys that somebody wrote. Aliases lead to rows that are none. */
const xkd_option *xkd_option_find(const char *key)
{
    for (int i = 0; i < OPTIONS; i++)
        if (strcmp(options[i].key, key) == 0)
            return options[i].kind == XKD_OPTION_ALIAS ? xkd_option_find(options[i].initial) : &options[i];
    return NULL;
}

/* The name of a key within its map. */
static const char *last_part(const char *key)
{
    const char *dot = strrchr(key, '.');
    return dot ? dot + 1 : key;
}

/* Longer keys may be further off and still be meant. NULL: nothing is near. */
const char *xkd_option_suggest(const char *key)
{
    const char *best = NULL;
    size_t length = strlen(key);
    int distance = length < 12 ? 4 : (int)(length / 3);
    for (int i = 0; i < OPTIONS; i++) {
        /* `distance` is also the limit: what is no better need not be worked out exactly. */
        int whole = xkd_edit_distance(key, options[i].key, distance);
        /* The right name in the wrong place, a common mistake in a deep tree; 2: whole paths are better matches. */
        int tail = 2 + xkd_edit_distance(last_part(key), last_part(options[i].key), 2);
        int d = tail < whole && tail < 4 ? tail : whole;
        if (d < distance) {
            distance = d;
            best = options[i].key;
        }
    }
    return best;
}

/* "integer >= 1", "2 x real 0..<1 or off".
 * Ranges without a practical upper end are shown without it. */
static void range_text(const xkd_option *option, char *out, size_t size)
{
    const char *type = option->kind == XKD_OPTION_INT ? "integer" : "real";
    char list[32] = "", word[32] = "";
    if (option->count > 1) snprintf(list, sizeof list, "%d x ", option->count);
    if (option->zero_word) snprintf(word, sizeof word, " or %s", option->zero_word);
    /* Such a bound only keeps numbers within their type. */
    if (option->high >= 1e5)
        snprintf(out, size, "%s%s >= %g%s", list, type, option->low, word);
    else
        snprintf(out, size, "%s%s %g..%s%g%s", list, type, option->low, option->below_high ? "<" : "", option->high,
                 word);
}

/* Short, as it stands in help and messages. */
void xkd_option_type_text(const xkd_option *option, char *out, size_t size)
{
    switch (option->kind) {
    case XKD_OPTION_INT:
    case XKD_OPTION_REAL: range_text(option, out, size); break;
    case XKD_OPTION_BOOL: snprintf(out, size, "%s", option->choices ? option->choices : "true|false"); break;
    case XKD_OPTION_CHOICE:
    case XKD_OPTION_FIXED: snprintf(out, size, "%s", option->choices); break;
    case XKD_OPTION_TEXT: snprintf(out, size, "text"); break;
    case XKD_OPTION_CACHE: snprintf(out, size, "none|ram|DIR"); break;
    case XKD_OPTION_LIST:
        snprintf(out, size, "list of up to %d reals %g..%g", option->count, option->low, option->high);
        break;
    case XKD_OPTION_AREA: snprintf(out, size, "real or 2 x real %g..%g", option->low, option->high); break;
    case XKD_OPTION_CONSTANT: snprintf(out, size, "real %g..%g", option->low, option->high); break;
    case XKD_OPTION_ENCODER:
    case XKD_OPTION_DECODER:
    case XKD_OPTION_HEAD: snprintf(out, size, "preset or map"); break;
    case XKD_OPTION_ALIAS:
    case XKD_OPTION_IGNORED: *out = 0; break;
    }
}
