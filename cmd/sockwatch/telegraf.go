package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// telegrafFlags maps flags of telegraf to what to use instead.
var telegrafFlags = map[string]string{
	"--test":          `is a command: "sockwatch test"`,
	"--once":          `is a command: "sockwatch once"`,
	"--version":       `is a command: "sockwatch version"`,
	"-V":              `is a command: "sockwatch version"`,
	"--sample-config": `is a command: "sockwatch config"`,
	"--input-list":    `is not needed: "sockwatch config" shows every input`,
	"--output-list":   `is not needed: "sockwatch config" shows every output`,
	"--watch-config":  `is not an option: SIGHUP reloads the configuration`,
	"--debug":         `is an option of the configuration: log_level = "debug" in [agent]`,
	"--quiet":         `is an option of the configuration: log_level = "error" in [agent]`,
	"--pidfile":       `is not an option: the service manager knows the process`,
}

// forTelegrafUsers returns the error for a wrong command line. If the command line is one
// that telegraf would accept, or asks for "help", the error says what to use instead.
func forTelegrafUsers(model *kong.Application, args []string, err error) error {
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		if len(flag) > 2 && flag[0] == '-' && flag[1] != '-' {
			flag = "-" + flag // telegraf also accepts flags with one hyphen
		}
		if hint := telegrafFlags[flag]; hint != "" && strings.HasPrefix(err.Error(), "unknown flag "+arg[:2]) {
			return fmt.Errorf("%s %s", arg, hint)
		}
	}
	if len(args) == 0 || args[0] != "help" {
		return err
	}
	if len(args) > 1 && slices.ContainsFunc(model.Children, func(n *kong.Node) bool { return n.Name == args[1] }) {
		return fmt.Errorf("help is a flag: \"sockwatch %s --help\"", args[1])
	}
	return errors.New(`help is a flag: "sockwatch --help"`)
}
