// Package dirent parses directory entries of procfs, which are processes, threads and open
// files, without an allocation for each.
package dirent

import (
	"bytes"
	"encoding/binary"
)

// Next returns the name of the first entry that getdents64(2) has written to b, and the
// entries after it. The name is part of b. It is empty if the entry is damaged or none is
// left.
//
//	struct linux_dirent64 { u64 ino; s64 off; u16 reclen; u8 type; char name[]; }
func Next(b []byte) (name, rest []byte) {
	const header = 19
	if len(b) < header {
		return nil, nil
	}
	size := int(binary.NativeEndian.Uint16(b[16:]))
	if size < header || size > len(b) {
		return nil, nil
	}
	name, _, _ = bytes.Cut(b[header:size], []byte{0})
	return name, b[size:]
}

// Number parses a name that is the number of a process, a thread or an open file, which has
// at most 31 bits.
func Number(name []byte) (int, bool) {
	n := 0
	for _, c := range name {
		if c < '0' || c > '9' || n > (1<<31-1-9)/10 {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, len(name) > 0
}
