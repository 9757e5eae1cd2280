package transport

import (
	"errors"
	"io"
)

// maxEmptyReads is how often inner may answer (0, nil) in a row.
const maxEmptyReads = 100

var (
	errInvalidRead = errors.New("sslstream: the inner stream's Read returned an impossible count")
	errDry         = errors.New("sslstream: internal error: nothing may be read")
)

// reader hands records to crypto/tls, at most the rest of one record at a time: so nothing that follows the last
// record, and could be plain text, ends up in crypto/tls's own buffer, which never shrinks. When exact it also reads no
// further than that. Otherwise it reads ahead, into memory that it holds only while there is something in it.
type reader struct {
	exact bool
	dry   bool // inner must not be read: what is not there already is errDry
	eof   bool // crypto/tls was told that inner ended
	bulk  bool // much came the last time: there may be more

	record  framing
	ahead   buffer     // read, but not handed over
	err     error      // inner's, to be reported once ahead is empty
	pending *innerRead // a Read of inner that may have outlived the call that began it
	inner   io.Reader
	limits  limits
}

// ready reports whether crypto/tls could read a record of the user's data without inner being read.
func (r *reader) ready() bool { return !r.record.inside() && whole(r.ahead.bytes()) }

// read is what crypto/tls reads with.
func (r *reader) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for range maxEmptyReads {
		if b := r.ahead.bytes(); len(b) > 0 {
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
		if r.dry {
			return 0, errDry
		}
		n, err := r.fill(p)
		if err != nil || n > 0 {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// fill reads from inner once. It returns what it put into p, which belongs to the current record; the rest is in ahead.
// An error of inner's comes with no bytes: it is kept for the next time otherwise.
func (r *reader) fill(p []byte) (int, error) {
	if r.exact {
		p = p[:min(len(p), r.record.missing())]
	}
	if r.pending != nil || !r.limits.native.Load() {
		return 0, r.fillAside(len(p))
	}
	// Between two records inner may have nothing for a long time, so it is crypto/tls's memory that waits. Only inside a
	// record, where more is certain to come, is it some of our own; and a lot only where a lot has come, since a peer that
	// stops in the middle of a record makes us hold it.
	if r.exact || !r.record.inside() {
		n, err := r.inner.Read(p)
		n, err = r.checked(n, len(p), err)
		own := r.record.advance(p[:n])
		if own < n {
			r.ahead.append(p[own:n], 0)
		}
		r.bulk = n >= maxPlaintext
		return own, err
	}
	size := recordSlab
	if r.bulk {
		size = batchSlab
	}
	b := r.ahead.space(size)
	n, err := r.inner.Read(b)
	n, err = r.checked(n, len(b), err)
	r.ahead.extend(n)
	r.bulk = n >= maxPlaintext
	return 0, err
}

// fillAside is fill for an inner stream without deadlines: it reads on a goroutine that ends with inner's Read.
func (r *reader) fillAside(size int) error {
	if r.pending == nil {
		if err := r.limits.over(); err != nil {
			return err
		}
		if !r.exact {
			size = recordSlab
		}
		r.pending = startRead(r.inner, size)
	}
	if err := r.limits.wait(r.pending.done); err != nil {
		return err
	}
	done := r.pending
	r.pending = nil
	n, err := r.checked(done.n, len(done.b), done.err)
	r.ahead = buffer{slab: done.slab}
	r.ahead.extend(n)
	return err
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

// release gives the memory back. What an abandoned Read of inner brings is lost.
func (r *reader) release() {
	r.ahead.drop()
	if r.pending != nil {
		r.pending.slab.abandon()
		r.pending = nil
	}
}

// innerRead is a Read of an inner stream without deadlines, on a goroutine that ends with it.
type innerRead struct {
	slab *slab
	b    []byte
	done chan struct{}
	n    int // valid once done is closed
	err  error
}

func startRead(inner io.Reader, size int) *innerRead {
	s := takeSlab(size)
	r := &innerRead{slab: s, b: s.b[:size], done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.n, r.err = inner.Read(r.b)
	}()
	return r
}
