/* found.h - what a search of the library found; private to planner/library/. */
#ifndef BL_PLANNER_LIBRARY_FOUND_H
#define BL_PLANNER_LIBRARY_FOUND_H

#include "planner/library/handle.h"
#include "planner/search/search.h"

struct ballast_found {
  ballast *handle; /* borrowed */
  bl_search_result result;
};

#endif
