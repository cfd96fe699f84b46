package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// A node has the line of a value of a TOML text. The nodes of a text have the
// shape of its values. The library's own positions are by dotted key, and thus
// those of the last of several [[tables]] of one name.
type node struct {
	line  int
	keys  map[string]*node // of a table
	order []string         // its keys in the order of the text
	items []*node          // of an array
}

// key returns the node of a key, or n itself if it has none.
func (n *node) key(name string) *node {
	if n == nil || n.keys[name] == nil {
		return n
	}
	return n.keys[name]
}

// item returns the node of an element, or n itself if it has none.
func (n *node) item(i int) *node {
	if n == nil || i >= len(n.items) {
		return n
	}
	return n.items[i]
}

// child returns the node of a key, made if it does not exist.
func (n *node) child(name string, line int) *node {
	if c := n.keys[name]; c != nil {
		return c
	}
	if n.keys == nil {
		n.keys = make(map[string]*node)
	}
	c := &node{line: line}
	n.keys[name] = c
	n.order = append(n.order, name)
	return c
}

// descend returns the table under a dotted key: of an array of tables, its last.
func (n *node) descend(path []string, line int) *node {
	for _, name := range path {
		n = n.child(name, line)
		if len(n.items) > 0 {
			n = n.items[len(n.items)-1]
		}
	}
	return n
}

// locate returns the nodes of a text that the library has found to be valid; of
// any other text, some.
func locate(text string) *node {
	s := scanner{rest: text, line: 1}
	root := &node{line: 1}
	for table := root; s.skipBlank(); {
		line := s.line
		switch {
		case s.accept("[["):
			path := s.keyPath()
			if len(path) == 0 || !s.accept("]") || !s.accept("]") {
				return root
			}
			list := root.descend(path[:len(path)-1], line).child(path[len(path)-1], line)
			table = &node{line: line}
			list.items = append(list.items, table)
		case s.accept("["):
			path := s.keyPath()
			if len(path) == 0 || !s.accept("]") {
				return root
			}
			table = root.descend(path, line)
		case !s.assignment(table):
			return root
		}
	}
	return root
}

// maxDepth is how deep tables, lists and dotted keys may be nested. The library
// takes memory by the square of the depth, and stack.
const maxDepth = 32

// tooDeep returns the line at which a text is nested deeper than maxDepth, 0 if it
// is not. It sees all that the library parses before it finds an error.
func tooDeep(text string) (line int) {
	s := scanner{rest: text, line: 1}
	brackets, dots := 0, 0
	for s.rest != "" {
		switch c := s.rest[0]; c {
		case '[', '{':
			brackets++
			dots = 0
		case ']', '}':
			brackets--
			dots = 0
		case '.':
			dots++
		case '=', ',', '\n':
			dots = 0
		case '#':
			s.skipBlank()
			continue
		case '"', '\'':
			s.str()
			continue
		}
		if brackets > maxDepth || dots > maxDepth {
			return s.line
		}
		s.advance(1)
	}
	return 0
}

// A scanner walks through TOML text.
type scanner struct {
	rest string
	line int // of the first byte of rest
}

// assignment reads `key = value` into the table; false if there is none.
func (s *scanner) assignment(table *node) bool {
	line := s.line
	path := s.keyPath()
	if len(path) == 0 || !s.accept("=") {
		return false
	}
	s.skipSpace()
	return s.value(table.descend(path, line))
}

// value reads a value into its node; false if it has no end.
func (s *scanner) value(at *node) bool {
	switch {
	case s.accept("["):
		for s.skipBlank() && !s.accept("]") {
			item := &node{line: s.line}
			at.items = append(at.items, item)
			before := len(s.rest)
			if !s.value(item) || !s.skipBlank() {
				return false
			}
			s.accept(",")
			if len(s.rest) == before {
				return false
			}
		}
	case s.accept("{"):
		for s.skipBlank() && !s.accept("}") {
			if !s.assignment(at) || !s.skipBlank() {
				return false
			}
			s.accept(",")
		}
	case strings.HasPrefix(s.rest, `"`), strings.HasPrefix(s.rest, `'`):
		return s.str() != ""
	default: // a number, a date, true or false
		end := strings.IndexAny(s.rest, ",]}#\n")
		if end < 0 {
			end = len(s.rest)
		}
		s.advance(end)
	}
	return true
}

// keyPath reads a dotted key and the blanks around it; nil if there is none.
func (s *scanner) keyPath() []string {
	var path []string
	for {
		s.skipSpace()
		var name string
		if strings.HasPrefix(s.rest, `"`) || strings.HasPrefix(s.rest, `'`) {
			name = unquote(s.str())
		} else {
			end := strings.IndexFunc(s.rest, func(r rune) bool { return !isBare(r) })
			if end < 0 {
				end = len(s.rest)
			}
			if end == 0 {
				return nil
			}
			name = s.advance(end)
		}
		path = append(path, name)
		s.skipSpace()
		if !s.accept(".") {
			return path
		}
	}
}

func isBare(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-'
}

// unquote returns what a quoted key stands for.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// str reads a string of any of the four kinds, with its quotes; "" if it has
// no end.
func (s *scanner) str() string {
	quote := s.rest[:1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s.rest, triple) {
		quote = triple
	}
	for end := len(quote); end < len(s.rest); end++ {
		switch {
		case s.rest[end] == '\\' && quote[0] == '"':
			end++
		case strings.HasPrefix(s.rest[end:], quote):
			end += len(quote)
			// Up to two quotes may precede the three that end the string.
			for range len(quote) - 1 {
				if strings.HasPrefix(s.rest[end:], quote[:1]) {
					end++
				}
			}
			return s.advance(end)
		}
	}
	s.advance(len(s.rest))
	return ""
}

// accept reads a token, if it comes next.
func (s *scanner) accept(token string) bool {
	if !strings.HasPrefix(s.rest, token) {
		return false
	}
	s.advance(len(token))
	return true
}

// skipBlank skips blanks, ends of lines and comments; false at the end.
func (s *scanner) skipBlank() bool {
	for {
		s.advance(len(s.rest) - len(strings.TrimLeft(s.rest, " \t\r\n")))
		if !strings.HasPrefix(s.rest, "#") {
			return s.rest != ""
		}
		end := strings.IndexByte(s.rest, '\n')
		if end < 0 {
			end = len(s.rest)
		}
		s.advance(end)
	}
}

func (s *scanner) skipSpace() {
	s.advance(len(s.rest) - len(strings.TrimLeft(s.rest, " \t")))
}

// advance moves on by n bytes and returns them.
func (s *scanner) advance(n int) string {
	skipped := s.rest[:n]
	s.rest = s.rest[n:]
	s.line += strings.Count(skipped, "\n")
	return skipped
}
