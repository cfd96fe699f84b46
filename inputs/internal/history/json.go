package history

// The functions of this file append JSON as encoding/json would write it. Members and elements end
// with a comma, which end replaces.

import "encoding/json"

// appendKey appends the key of a member. The key must not need escapes.
func appendKey(b []byte, key string) []byte {
	return append(append(append(b, '"'), key...), `":`...)
}

// appendString appends a string.
func appendString(b []byte, s string) []byte {
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

// end closes an object or array with its bracket, and appends a comma.
func end(b []byte, bracket byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, bracket, ',')
}
