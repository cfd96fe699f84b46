// Package jsonappend appends JSON to a slice of bytes. It writes what encoding/json would
// write, without reflection: the records of thousands of listeners may change at once.
//
// Members and elements end with a comma, which End replaces.
package jsonappend

import "encoding/json"

// Key appends the key of a member. The key must not need escapes.
func Key(b []byte, key string) []byte {
	return append(append(append(b, '"'), key...), `":`...)
}

// String appends a string.
func String(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // cannot happen: every string can be encoded
			}
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// End closes an object or array with its bracket, and appends a comma.
func End(b []byte, bracket byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, bracket, ',')
}
