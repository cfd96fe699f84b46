package procfs

import (
	"bytes"
	"encoding/binary"
)

// nextEntry cuts the first entry off what getdents64(2) wrote and returns its
// name, which is part of b; an empty name where the entry is damaged or none is
// left.
//
//	struct linux_dirent64 { u64 ino; s64 off; u16 reclen; u8 type; char name[]; }
func nextEntry(b []byte) (name, rest []byte) {
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
