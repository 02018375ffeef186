/* commands.h - the sub-commands of ballast-plan, a file each (command_NAME.c), listed in main.c. */
#ifndef BL_PLANNER_COMMANDS_H
#define BL_PLANNER_COMMANDS_H

#include "base/options.h"

/* Each returns the command with its option table; tables and targets are static, one command runs in one process. */
bl_command bl_command_place(void);
bl_command bl_command_replay(void);
bl_command bl_command_check(void);
bl_command bl_command_explain(void);
bl_command bl_command_simulate(void);
bl_command bl_command_search(void);
bl_command bl_command_estimate(void);
bl_command bl_command_export(void);
bl_command bl_command_fit(void);

#endif
