package lifecycle

func (v Verdict) String() string {
	return string(v.Image.Digest) + " " + string(v.Action) + " " + string(v.Reason)
}
func (p *Plan) String() string { return "plan" }
