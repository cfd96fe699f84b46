package push

import "net/http"

// An Answer is a server's answer to a request, unchanged. It may quote secrets: only
// Client.Describe makes text from it that may be shown.
type Answer struct {
	Status int
	Header http.Header
	// Body is the body after decompression. It is empty if Err is set.
	Body []byte
	// Cut reports that the body was longer than MaxAnswer, and that the rest was not read.
	Cut bool
	// Err is why the body is incomplete. Status and Header are still valid.
	Err error
}

// MaxAnswer is how much of an answer is read, both before and after decompression.
const MaxAnswer = 64 << 10
