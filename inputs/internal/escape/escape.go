// Package escape makes names that come from the host safe to show. A process can have any
// name, but it must remain one line, one series and one object.
package escape

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Name returns a name that comes from the host as one line of printable UTF-8. Every byte that
// is not part of a printable character becomes \xHH, and a backslash becomes \x5c, so
// different names stay different.
func Name(name []byte) string {
	if plain(name) {
		return string(name)
	}
	const digits = "0123456789abcdef"
	var b strings.Builder
	for len(name) > 0 {
		r, size := utf8.DecodeRune(name)
		if printable(r, size) {
			b.Write(name[:size])
		} else {
			for _, c := range name[:size] {
				b.WriteString(`\x`)
				b.WriteByte(digits[c>>4])
				b.WriteByte(digits[c&15])
			}
		}
		name = name[size:]
	}
	return b.String()
}

func plain(name []byte) bool {
	for i := 0; i < len(name); {
		r, size := utf8.DecodeRune(name[i:])
		if !printable(r, size) {
			return false
		}
		i += size
	}
	return true
}

func printable(r rune, size int) bool {
	return r != '\\' && (r != utf8.RuneError || size > 1) && unicode.IsPrint(r)
}

// Cut is like Name, but returns at most limit bytes. It cuts between two characters, and not
// inside a \xHH.
func Cut(name []byte, limit int) string {
	end, length := 0, 0
	for end < len(name) {
		r, size := utf8.DecodeRune(name[end:])
		if !utf8.FullRune(name[end:]) {
			break // the caller has read only part of this character
		}
		width := size
		if !printable(r, size) {
			width = size * len(`\xHH`)
		}
		if length+width > limit {
			break
		}
		end, length = end+size, length+width
	}
	return Name(name[:end])
}
