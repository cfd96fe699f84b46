package cgroup

import "strings"

// initScope is the unit of a manager itself, at the root of the manager's cgroups.
const initScope = "init.scope"

// processUnits are the types of units whose cgroups hold processes.
var processUnits = []string{".service", ".scope", ".socket", ".mount", ".swap"}

// unescape removes the "_" that systemd puts before the name of a unit that would look like
// one of the kernel's own files: cg_escape in systemd's cgroup-util.c.
func unescape(dir string) string { return strings.TrimPrefix(dir, "_") }

// isUnit reports whether a name is a valid name of a unit of one of the types, by the rules of
// unit_name_is_valid in systemd's unit-name.c. A template is not a unit.
func isUnit(name string, types ...string) bool {
	if len(name) > 255 {
		return false
	}
	for _, suffix := range types {
		id, ok := strings.CutSuffix(name, suffix)
		if !ok {
			continue
		}
		prefix, instance, instantiated := strings.Cut(id, "@")
		return prefix != "" && (!instantiated || instance != "") && onlyOf(id, unitBytes)
	}
	return false
}

const unitBytes = letters + digits + `:-_.\@`

// isUserManager reports whether a unit is user@UID.service.
func isUserManager(unit string) bool { return isNumber(between(unit, "user@", ".service")) }

// isUserSlice reports whether a unit is user-UID.slice, which contains everything that runs
// for a user.
func isUserSlice(unit string) bool { return isNumber(between(unit, "user-", ".slice")) }

// isSession reports whether a unit is the scope of a login session.
func isSession(unit string) bool {
	id := between(unit, "session-", ".scope")
	return id != "" && onlyOf(id, letters+digits)
}

// between returns the text between a prefix and a suffix, or "" if s does not have both.
func between(s, prefix, suffix string) string {
	s, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return ""
	}
	if s, ok = strings.CutSuffix(s, suffix); !ok {
		return ""
	}
	return s
}

const (
	digits    = "0123456789"
	hexDigits = digits + "abcdef"
	letters   = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

func isNumber(s string) bool { return s != "" && onlyOf(s, digits) }

func onlyOf(s, set string) bool {
	for i := range len(s) {
		if strings.IndexByte(set, s[i]) < 0 {
			return false
		}
	}
	return true
}
