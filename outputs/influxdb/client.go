package influxdb

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"
)

// A client posts to servers, with the credentials and certificates that are on disk at
// that time.
type client struct {
	options     Options
	credentials *credentials
	pemFiles    [3]*file  // tls_ca, tls_cert and tls_key
	pem         [3][]byte // their contents when http was made
	http        *http.Client
}

func newClient(o *Options, log *slog.Logger) *client {
	c := &client{options: *o, credentials: newCredentials(o, log)}
	for i, f := range []struct{ option, path string }{
		{"tls_ca", o.TLSCA}, {"tls_cert", o.TLSCert}, {"tls_key", o.TLSKey},
	} {
		c.pemFiles[i] = newFile(f.option, f.path, maxPEM)
	}
	return c
}

// maxPEM is the maximum size of a certificate file. Bundles of all public authorities are
// about 256 KiB.
const maxPEM = 4 << 20

// refresh reads the secret and certificate files again, since they may have been replaced
// after the last request. It makes a new HTTP client for the first request, and if the
// certificates have changed.
func (c *client) refresh(ctx context.Context, servers []*server) error {
	if err := c.credentials.refresh(ctx); err != nil {
		return err
	}
	c.credentials.warnOfPlaintext(servers)
	var pem [3][]byte
	same := c.http != nil
	for i, f := range c.pemFiles {
		if f.path == "" {
			continue
		}
		content, err := f.read(ctx)
		if err != nil {
			return err
		}
		pem[i] = content.data
		same = same && bytes.Equal(pem[i], c.pem[i])
	}
	if same {
		return nil
	}
	config, err := c.tlsConfig(pem)
	if err != nil {
		return err
	}
	c.close()
	c.pem, c.http = pem, newHTTPClient(config)
	return nil
}

// tlsConfig returns the TLS configuration for the options and the contents of tls_ca,
// tls_cert and tls_key.
func (c *client) tlsConfig(pem [3][]byte) (*tls.Config, error) {
	config := &tls.Config{ServerName: c.options.TLSServerName, InsecureSkipVerify: c.options.InsecureSkipVerify}
	if c.options.TLSCA != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem[0]) {
			return nil, fmt.Errorf("tls_ca: %q contains no PEM certificate", c.options.TLSCA)
		}
	}
	if c.options.TLSCert != "" {
		cert, err := tls.X509KeyPair(pem[1], pem[2])
		if err != nil {
			return nil, fmt.Errorf("tls_cert: %q: %w", c.options.TLSCert, err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

func newHTTPClient(config *tls.Config) *http.Client {
	return &http.Client{
		// A redirect can lead to a host that must not see the token.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSClientConfig:        config,
			DisableCompression:     true, // readAnswer decompresses, up to a limit
			MaxResponseHeaderBytes: maxAnswer,
			IdleConnTimeout:        90 * time.Second,
			ExpectContinueTimeout:  time.Second,
		},
	}
}

// A request is what a client posts.
type request struct {
	url         string
	contentType string
	encoding    string // of the body; "": none
	body        []byte
}

// expectAbove is the size above which a body is announced with "Expect: 100-continue". A
// server that refuses the body can then answer 413. Without that, it might reset the
// connection, and the answer would be lost.
const expectAbove = 1 << 20

// post sends a request and returns the server's answer.
func (c *client) post(ctx context.Context, s *server, r request) (answer, error) {
	expect := len(r.body) > expectAbove && !s.refusesExpect
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(r.body))
	if err != nil {
		return answer{}, withoutURL(err)
	}
	req.Header.Set("Content-Type", r.contentType)
	req.Header.Set("User-Agent", "sockwatch")
	if r.encoding != "" {
		req.Header.Set("Content-Encoding", r.encoding)
	}
	if expect {
		req.Header.Set("Expect", "100-continue")
	}
	c.credentials.apply(req)
	// net/http may repeat the request if the connection turns out to be dead, because a
	// point that is written twice overwrites itself. The header itself is not sent.
	req.Header["Idempotency-Key"] = nil
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{}, c.credentials.hideInError(withoutURL(err))
	}
	defer resp.Body.Close()
	if expect && resp.StatusCode == http.StatusExpectationFailed {
		s.refusesExpect = true
		return c.post(ctx, s, r)
	}
	return readAnswer(resp), nil
}

// withoutURL removes the URL from an error of net/http or net/url. Callers add the
// server's name, which is enough.
func withoutURL(err error) error {
	if uerr, ok := errors.AsType[*url.Error](err); ok {
		return uerr.Err
	}
	return err
}

func (c *client) close() {
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}
