/* plan_layout.h - the layout of a plan file. Private to costmodel/plan*.c. */
#ifndef BL_COSTMODEL_PLAN_LAYOUT_H
#define BL_COSTMODEL_PLAN_LAYOUT_H

#include "base/json.h"
#include "costmodel/plan.h"

/*! bl_layout_read(), bl_layout_write() : the object "layout", strictly; read, it is still to be checked
 *  (bl_layout_check()). */
bl_status bl_layout_read(bl_json json, bl_layout *layout);
void bl_layout_write(bl_json_writer *w, const bl_layout *layout);

#endif
