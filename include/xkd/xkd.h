/* All public headers. */
#ifndef XKD_XKD_H
#define XKD_XKD_H

#include <xkd/classify.h>
#include <xkd/clip.h>
#include <xkd/context.h>
#include <xkd/embed.h>
#include <xkd/pretrain.h>
#include <xkd/replay.h>
#include <xkd/retrieve.h>
#include <xkd/status.h>
#include <xkd/version.h>
#include <xkd/worker.h>

#endif
