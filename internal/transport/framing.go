package transport

// typeApplicationData is the type of the records that carry the user's data, and in TLS 1.3 of all that are protected.
const typeApplicationData = 23

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
		f.rest = bodyLen(f.header[:])
	}
	body := min(f.rest, len(p)-n)
	f.rest -= body
	if f.rest == 0 {
		f.have = 0
	}
	return n + body
}

func bodyLen(header []byte) int { return int(header[3])<<8 | int(header[4]) }

// whole reports whether p begins with a whole record that may carry the user's data.
func whole(p []byte) bool {
	return len(p) > recordHeader && p[0] == typeApplicationData && len(p) >= recordHeader+bodyLen(p)
}
