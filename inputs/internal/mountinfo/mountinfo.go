// Package mountinfo parses paths in /proc/PID/mountinfo.
package mountinfo

import (
	"bytes"
	"strconv"
)

// Unescape decodes a path in which the kernel has written space, tab, line feed and backslash
// as octal numbers, such as `\040` for a space.
func Unescape(path []byte) string {
	if bytes.IndexByte(path, '\\') < 0 {
		return string(path)
	}
	unescaped := make([]byte, 0, len(path))
	for len(path) > 0 {
		if path[0] == '\\' && len(path) >= 4 {
			if c, err := strconv.ParseUint(string(path[1:4]), 8, 8); err == nil {
				unescaped, path = append(unescaped, byte(c)), path[4:]
				continue
			}
		}
		unescaped, path = append(unescaped, path[0]), path[1:]
	}
	return string(unescaped)
}
