/* commands.h - the sub-commands of ballast-trace, a file each (command_NAME.c), listed in main.c. */
#ifndef BL_TRACES_COMMANDS_H
#define BL_TRACES_COMMANDS_H

#include "base/options.h"

/* Each returns the command with its option table; tables and targets are static, one command runs in one process. */
bl_command bl_command_import(void);
bl_command bl_command_export(void);
bl_command bl_command_info(void);
bl_command bl_command_stats(void);
bl_command bl_command_gen(void);

#endif
