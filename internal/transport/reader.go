package transport

import (
	"errors"
	"io"
)

// maxEmptyReads is how often inner may answer (0, nil) in a row.
const maxEmptyReads = 100

var errInvalidRead = errors.New("sslstream: the inner stream's Read returned an impossible count")

// reader hands records to crypto/tls, at most the rest of one record at a time: so nothing that follows the last
// record, and could be plain text, ends up in crypto/tls's own buffer. When exact it also reads no further than that.
type reader struct {
	inner  io.Reader
	exact  bool
	limits limits

	record  framing
	ahead   buffer     // read, but not handed over
	err     error      // inner's, to be reported once ahead is empty
	pending *innerRead // a Read of inner that may have outlived the call that began it
	eof     bool       // crypto/tls was told that inner ended
}

// framing follows the records (RFC 8446, Section 5.1: type, version, length of what follows).
type framing struct {
	header [recordHeader]byte
	have   int // bytes of header seen; complete once the record's length is known
	rest   int // bytes of the record that are still to come, once its length is known
}

// missing is how many bytes are certain to belong to the current record: the rest of it, or of its header.
func (f *framing) missing() int {
	if f.have < recordHeader {
		return recordHeader - f.have
	}
	return f.rest
}

// inside reports whether a record has begun but not ended.
func (f *framing) inside() bool { return f.have > 0 }

// advance returns how many of the bytes p, which come next, belong to the current record, and counts them as
// handed over.
func (f *framing) advance(p []byte) int {
	n := 0
	if f.have < recordHeader {
		n = copy(f.header[f.have:], p)
		f.have += n
		if f.have < recordHeader {
			return n
		}
		f.rest = int(f.header[3])<<8 | int(f.header[4])
	}
	body := min(f.rest, len(p)-n)
	f.rest -= body
	if f.rest == 0 {
		f.have = 0
	}
	return n + body
}

// read is what crypto/tls reads with.
func (r *reader) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for range maxEmptyReads {
		if r.ahead.len() > 0 {
			b := r.ahead.bytes()
			n := copy(p, b[:r.record.advance(b[:min(len(b), len(p))])])
			r.ahead.consume(n)
			return n, nil
		}
		if r.err != nil {
			err := r.err
			if err == io.EOF {
				r.eof = true
			} else {
				r.err = nil // inner may recover, and be read again
			}
			return 0, err
		}
		n, err := r.fill(p)
		if err != nil || n > 0 {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// fill reads from inner once. It returns what it put into p, which belongs to the current record; what goes
// beyond is in ahead. An error of inner's comes with no bytes: it is kept for the next time otherwise.
func (r *reader) fill(p []byte) (int, error) {
	if r.pending == nil {
		direct, err := r.limits.enter()
		if err != nil {
			return 0, err
		}
		if r.exact {
			p = p[:min(len(p), r.record.missing())]
		}
		if direct {
			n, err := r.inner.Read(p)
			r.limits.leave()
			n, err = r.checked(n, len(p), err)
			own := r.record.advance(p[:n])
			r.ahead.append(p[own:n])
			return own, err
		}
		r.pending = startRead(r.inner, len(p))
	}
	if err := r.limits.wait(r.pending.done); err != nil {
		return 0, err
	}
	done := r.pending
	r.pending = nil
	n, err := r.checked(done.n, len(done.buffer), done.err)
	r.ahead.append(done.buffer[:n])
	return 0, err
}

// checked makes sense of what inner's Read returned. Where bytes come with an error the error is kept for the
// time after them.
func (r *reader) checked(n, asked int, err error) (int, error) {
	if n < 0 || n > asked {
		return 0, errInvalidRead
	}
	if err == io.EOF {
		r.err = err
		return n, nil
	}
	if err != nil {
		ended := false
		if err, ended = r.limits.cause(err); n > 0 {
			if !ended { // the end of this call is nothing to tell the next one
				r.err = err
			}
			err = nil
		}
	}
	return n, err
}

// innerRead is a Read of an inner stream without deadlines, on a goroutine that ends with it.
type innerRead struct {
	buffer []byte
	done   chan struct{}
	n      int // valid once done is closed
	err    error
}

func startRead(inner io.Reader, size int) *innerRead {
	r := &innerRead{buffer: make([]byte, size), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.n, r.err = inner.Read(r.buffer)
	}()
	return r
}
