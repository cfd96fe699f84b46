package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// telegrafFlags are flags of telegraf that are commands here, or not needed.
var telegrafFlags = map[string]string{
	"--test":          `is a command here: "sockwatch test"`,
	"--once":          `is a command here: "sockwatch once"`,
	"--version":       `is a command here: "sockwatch version"`,
	"-V":              `is a command here: "sockwatch version"`,
	"--sample-config": `is a command here: "sockwatch config"`,
	"--input-list":    `is not needed: "sockwatch config" shows every input`,
	"--output-list":   `is not needed: "sockwatch config" shows every output`,
	"--watch-config":  `is not an option: SIGHUP reloads the configuration`,
	"--debug":         `is an option of the configuration: log_level = "debug" in [agent]`,
	"--quiet":         `is an option of the configuration: log_level = "error" in [agent]`,
	"--pidfile":       `is not an option: the service manager knows the process`,
}

// forTelegrafUsers returns the error of a wrong command line, which points to the
// command if somebody writes what other programs take.
func forTelegrafUsers(model *kong.Application, args []string, err error) error {
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		if len(flag) > 2 && flag[0] == '-' && flag[1] != '-' {
			flag = "-" + flag // Go's flags take one hyphen
		}
		if hint := telegrafFlags[flag]; hint != "" && strings.HasPrefix(err.Error(), "unknown flag "+arg[:2]) {
			return fmt.Errorf("%s %s", arg, hint)
		}
	}
	if len(args) == 0 || args[0] != "help" {
		return err
	}
	if len(args) > 1 && slices.ContainsFunc(model.Children, func(n *kong.Node) bool { return n.Name == args[1] }) {
		return fmt.Errorf("help is a flag here: \"sockwatch %s --help\"", args[1])
	}
	return errors.New(`help is a flag here: "sockwatch --help"`)
}
