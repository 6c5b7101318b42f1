write_report() { ls $work/*.row; }
