/* group.c - the two grids, attention and expert, over one world. */
#include "costmodel/group.h"

const char *const bl_group_names[BL_GROUP_COUNT] = {
#define X(name, text, what) text,
    BL_GROUP_LIST(X)
#undef X
};

int32_t bl_layout_world(const bl_layout *layout) { return layout->tp * layout->cp * layout->dp * layout->pp; }

/* A group is a run of `size` ranks, `stride` apart. */
static void shape_of(const bl_layout *layout, bl_group_kind group, int32_t *size, int32_t *stride) {
  const int32_t stage = layout->tp * layout->cp * layout->dp;
  *size = *stride = 1;
  switch (group) {
  case BL_GROUP_NONE:
  case BL_GROUP_COUNT:
    return;
  case BL_GROUP_WORLD:
    *size = bl_layout_world(layout);
    return;
  case BL_GROUP_TP:
    *size = layout->tp;
    return;
  case BL_GROUP_DP:
    *size = layout->cp * layout->dp, *stride = layout->tp;
    return;
  case BL_GROUP_EP:
    *size = layout->ep, *stride = layout->etp;
    return;
  case BL_GROUP_EDP:
    *size = layout->edp, *stride = layout->etp * layout->ep;
    return;
  case BL_GROUP_PP:
    *size = layout->pp, *stride = stage;
    return;
  case BL_GROUP_CP:
    *size = layout->cp, *stride = layout->tp;
    return;
  case BL_GROUP_ETP:
    *size = layout->etp;
    return;
  case BL_GROUP_ENDS:
    if (layout->pp > 1) *size = 2, *stride = (layout->pp - 1) * stage;
    return;
  }
}

int32_t bl_group_size(const bl_layout *layout, bl_group_kind group) {
  int32_t size, stride;
  shape_of(layout, group, &size, &stride);
  return size;
}

bool bl_group_has(const bl_layout *layout, bl_group_kind group, int32_t rank) {
  const int32_t position = rank / (layout->tp * layout->cp * layout->dp);
  return group != BL_GROUP_ENDS || position == 0 || position == layout->pp - 1;
}

int32_t bl_group_members(const bl_layout *layout, bl_group_kind group, int32_t rank, int32_t *members) {
  int32_t size, stride;
  shape_of(layout, group, &size, &stride);
  const int32_t position = rank / stride % size, first = rank - position * stride;
  for (int32_t i = 0; i < size; i++) members[i] = first + i * stride;
  return position;
}
