package netns

import (
	"bytes"
	"strconv"

	"sockwatch/inputs/internal/mountinfo"
)

// parseNumber parses the text of a link to a network namespace: "net:[4026531840]".
func parseNumber(link []byte) (uint64, bool) {
	text, ok := bytes.CutPrefix(link, []byte("net:["))
	if !ok {
		return 0, false
	}
	text, ok = bytes.CutSuffix(text, []byte("]"))
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text), 10, 64)
	return n, err == nil && n != 0
}

// parseMount parses a line of /proc/PID/mountinfo. ok is true if it is the mount of a
// network namespace.
//
//	640 28 0:4 net:[4026532285] /run/docker/netns/1-abc rw shared:312 - nsfs nsfs rw
func parseMount(line []byte) (number uint64, path string, ok bool) {
	var root, point []byte
	for i := range 5 {
		field, rest, more := bytes.Cut(line, []byte{' '})
		if !more {
			return 0, "", false
		}
		switch line = rest; i {
		case 3:
			root = field
		case 4:
			point = field
		}
	}
	number, ok = parseNumber(root)
	path = mountinfo.Unescape(point)
	return number, path, ok && path != "" && path[0] == '/'
}
