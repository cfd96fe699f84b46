package config

import (
	"strings"

	"github.com/BurntSushi/toml"
)

// A node holds the line of a value in a TOML text. The tree of nodes has the shape of
// the values. The library's own positions are not enough: they are by dotted key, so
// that several [[tables]] of one name all get the position of the last.
type node struct {
	line  int
	keys  map[string]*node // if it is a table
	order []string         // the keys in the order of the text
	items []*node          // if it is an array
}

// key returns the node of a key, or n itself if n does not have the key.
func (n *node) key(name string) *node {
	if n == nil || n.keys[name] == nil {
		return n
	}
	return n.keys[name]
}

// item returns the node of an element, or n itself if n does not have the element.
func (n *node) item(i int) *node {
	if n == nil || i >= len(n.items) {
		return n
	}
	return n.items[i]
}

// child returns the node of a key. It creates the node if it does not exist.
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

// descend returns the table at a dotted key. For an array of tables that is the last.
func (n *node) descend(path []string, line int) *node {
	for _, name := range path {
		n = n.child(name, line)
		if len(n.items) > 0 {
			n = n.items[len(n.items)-1]
		}
	}
	return n
}

// locate returns the nodes of a text that the library has accepted. For other texts it
// returns some of them.
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

// maxDepth is how deep tables, lists and dotted keys may be nested. The library recurses,
// and its memory grows with the square of the depth.
const maxDepth = 32

// tooDeep returns the line at which a text is nested deeper than maxDepth, or 0. It
// covers everything that the library parses before it finds an error.
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

// assignment reads `key = value` into a table. It reports false if there is none.
func (s *scanner) assignment(table *node) bool {
	line := s.line
	path := s.keyPath()
	if len(path) == 0 || !s.accept("=") {
		return false
	}
	s.skipSpace()
	return s.value(table.descend(path, line))
}

// value reads a value into its node. It reports false if the value does not end.
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

// keyPath reads a dotted key and the spaces around it. It returns nil if there is none.
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

// unquote returns the value of a quoted key.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// str reads a string of any of the four kinds, with its quotes. It returns "" if the
// string does not end.
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
			// Up to two quotes may come before the three that end the string.
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

// accept reads a token if it comes next.
func (s *scanner) accept(token string) bool {
	if !strings.HasPrefix(s.rest, token) {
		return false
	}
	s.advance(len(token))
	return true
}

// skipBlank skips white space and comments. It reports false at the end.
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

// advance skips n bytes and returns them.
func (s *scanner) advance(n int) string {
	skipped := s.rest[:n]
	s.rest = s.rest[n:]
	s.line += strings.Count(skipped, "\n")
	return skipped
}
