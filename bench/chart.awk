# Horizontal bars as SVG, for docs: lines "label<TAB>value[<TAB>text beside the bar]" in, a picture out. -v title=...; an empty line is a gap.
# Text is of a grey that reads on white as on black; the background is transparent.
function escaped(s) { gsub(/&/, "\\&amp;", s); gsub(/</, "\\&lt;", s); return s }
BEGIN { FS = "\t" }
{ label[NR] = $1; value[NR] = $2; shown[NR] = NF > 2 ? $3 : $2; if ($2 + 0 > largest) largest = $2 + 0 }
END {
    left = 250; width = 400; row = 24; top = 44; height = top + row * NR + 10
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 %d\" width=\"800\" height=\"%d\" ", height, height
    print "font-family=\"system-ui, 'DejaVu Sans', Arial, sans-serif\" font-size=\"13\" fill=\"#6e7781\">"
    printf "<text x=\"8\" y=\"22\" font-size=\"15\" font-weight=\"bold\">%s</text>\n", escaped(title)
    for (i = 1; i <= NR; i++) {
        if (label[i] == "") continue
        y = top + row * (i - 1)
        printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 8, y + 13, escaped(label[i])
        length_ = largest > 0 ? width * value[i] / largest : 0
        printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"17\" rx=\"2\" fill=\"%s\" fill-opacity=\"0.85\"/>\n", left, y, length_, \
            label[i] ~ /fast|full/ ? "#2f9e6e" : "#3b82c4"
        printf "<text x=\"%.1f\" y=\"%d\">%s</text>\n", left + length_ + 6, y + 13, escaped(shown[i])
    }
    print "</svg>"
}
